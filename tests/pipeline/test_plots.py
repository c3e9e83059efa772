"""The pages and charts of `dvc plots`: drawn without a network, and legible with few and many revisions and epochs."""

import re
import shutil
from xml.etree import ElementTree

import pytest
import vl_convert
import yaml
from dvc_render import VegaRenderer
from playwright.sync_api import sync_playwright

from tests.clone import ROOT, run
from tools import plots_page

CHROMIUM = shutil.which("chromium")
REVISIONS = ["workspace", "main", "older"]


class Chart:
    """A template of .dvc/plots filled by DVC with rows of a CSV file, which are texts, once for each revision."""

    def __init__(self, template, rows, x, y, revisions=("workspace",)):
        points = [{**{k: str(v) for k, v in row.items()}, "rev": rev} for rev in revisions for row in rows]
        self.renderer = VegaRenderer(
            points, "chart", template=template, template_dir=ROOT / ".dvc/plots", x=x, y=y, title="title"
        )
        svg = vl_convert.vegalite_to_svg(self.renderer.get_filled_template())
        assert "NaN" not in svg
        self.svg = ElementTree.fromstring(svg)

    def marks(self, kind):
        """The marks of that kind, without those in legends."""
        groups = self.svg.findall(".//{*}g[@class]/{*}path/..")
        return [
            path
            for group in groups
            if f"mark-{kind} role-mark" in group.get("class")
            for path in group.findall("{*}path")
        ]

    def texts(self, role):
        groups = [g for g in self.svg.iter("{http://www.w3.org/2000/svg}g") if role in g.get("class", "")]
        return [text.text for group in groups for text in group.findall("{*}text")]


def position(mark):
    """Where a symbol is, or a line starts, in pixels."""
    return tuple(map(float, re.findall(r"-?[\d.]+", mark.get("transform") or mark.get("d"))[:2]))


def curves(n_configurations=2, n_epochs=12, n_seeds=3, revisions=REVISIONS):
    rows = [
        {"configuration": f"c{c}", "seed": seed, "epoch": epoch, "loss": (c + 1) / (epoch + 0.1 * seed)}
        for c in range(n_configurations)
        for seed in range(n_seeds)
        for epoch in range(1, n_epochs + 1)
    ]
    return Chart("curves", rows, "epoch", "loss", revisions)


@pytest.mark.parametrize("n_revisions", [1, 2, 3])
def test_curves_have_a_whole_band_for_each_revision(n_revisions):
    bands = curves(revisions=REVISIONS[:n_revisions]).marks("area")
    assert len(bands) == 2 * n_revisions
    # To the last epoch and back: 24 corners, and no gap.
    assert all(re.sub("[^MLZ]", "", band.get("d")) == "M" + 23 * "L" + "Z" for band in bands)


def test_colour_is_the_configuration_and_dash_the_revision():
    lines = curves(n_configurations=20).marks("line")
    assert len({(line.get("stroke"), line.get("stroke-dasharray")) for line in lines}) == len(lines) == 60
    assert len({line.get("stroke") for line in lines}) == 20
    assert len({line.get("stroke-dasharray") for line in lines}) == 3


def test_curves_of_one_epoch_are_points():
    chart = curves(n_epochs=1)
    assert len(chart.marks("symbol")) == 6
    shapes = {(point.get("fill"), point.get("d")) for point in chart.marks("symbol")}
    assert len(shapes) == 6, "a colour for each configuration and a shape for each revision"


def test_a_single_value_is_not_rounded_to_an_integer():
    row = {"configuration": "fine", "seed": 0, "epoch": 1, "loss": 0.66640302}
    assert "0.6664" in Chart("curves", [row], "epoch", "loss").texts("role-axis-label")


def test_the_last_epoch_is_found_by_number_not_as_text():
    assert {position(point)[0] for point in curves(n_epochs=12).marks("symbol")} == {480}


def test_one_seed_has_lines_and_bands_of_no_height():
    chart = curves(n_seeds=1, revisions=REVISIONS[:1])
    assert len(chart.marks("line")) == 2
    for band in chart.marks("area"):
        corners = re.findall(r"[\d.]+,[\d.]+", band.get("d"))
        assert corners[:12] == corners[:11:-1]


@pytest.mark.parametrize("classes", [["bird"], [f"class {i}" for i in range(10)]])
def test_roc_has_a_line_for_each_class_and_revision(classes):
    # 1e-05 is a small number, and a text that would come last.
    rows = [
        {"class": name, "false_positive_rate": x, "true_positive_rate": y}
        for name in classes
        for x, y in ((0.0, 0.0), (0.0, 1e-05), (0.0, 0.5), (0.2, 0.8), (1.0, 1.0))
    ]
    chart = Chart("roc", rows, "false_positive_rate", "true_positive_rate", REVISIONS)
    lines = [line for line in chart.marks("line") if line.get("stroke") != "#BBBBBB"]
    assert len({(line.get("stroke"), line.get("stroke-dasharray")) for line in lines}) == len(lines) == 3 * len(classes)
    heights = [float(y) for y in re.findall(r",([\d.]+)", lines[0].get("d"))]
    assert heights == sorted(heights, reverse=True)


def test_calibration_has_an_interval_for_each_point():
    rows = [{"confidence": c, "accuracy": c, "accuracy_low": c - 0.1, "accuracy_high": c + 0.1} for c in (0.6, 0.8)]
    chart = Chart("calibration", rows, "confidence", "accuracy", REVISIONS)
    assert len(chart.marks("symbol")) == 6
    assert len({point.get("fill") for point in chart.marks("symbol")}) == 3
    assert len(chart.svg.findall(".//{*}g[@class='mark-rule role-mark layer_1_marks']/{*}line")) == 6


@pytest.mark.parametrize("n_classes", [2, 10])
def test_confusion_matrix_shows_the_numbers_of_each_revision(n_classes):
    rows = [{"actual": f"c{a}", "predicted": f"c{p}"} for a in range(n_classes) for p in (*range(n_classes), a, a)]
    chart = Chart("confusion_matrix", rows, "predicted", "actual", REVISIONS)
    numbers = [text for text in chart.texts("mark-text role-mark") if text]
    assert sorted(numbers) == sorted(3 * (n_classes * ["3"] + n_classes * (n_classes - 1) * ["1"]))
    assert [text for text in chart.texts("role-column-title") + chart.texts("role-title") if text in REVISIONS]


def test_errors_of_zero_are_drawn_on_the_log_scale():
    rows = [{"layer": i, "activation": a, "error": e} for i in (1, 2) for a, e in (("relu", 0.0), ("tanh", 1e-9))]
    points = Chart("errors_by_layer", rows, "layer", "error", REVISIONS).marks("symbol")
    assert len(points) == 12
    assert len({(point.get("stroke"), point.get("d")) for point in points}) == 6


def test_dot_plot_is_sorted_by_value_with_an_error_bar_each():
    values = {"c": -0.0034, "a": 0.02, "b": -0.0007, "d": 0.1}
    rows = [{"name": name, "gain": value, "gain_se": 0.001} for name, value in values.items()]
    chart = Chart("dot_plot", rows, "gain", "name", REVISIONS)
    assert [text for text in chart.texts("role-axis-label") if text in values] == ["d", "a", "b", "c"]
    assert len({position(point)[1] for point in chart.marks("symbol")}) == 12, "revisions lie side by side"
    assert len(chart.svg.findall(".//{*}g[@class='mark-rule role-mark layer_0_marks']/{*}line")) == 12


def test_every_plot_has_a_template_of_the_project():
    for path in ("dvc.yaml", "extended/dvc.yaml"):
        names = set(re.findall(r"template: (\w+)", (ROOT / path).read_text()))
        assert {(ROOT / f".dvc/plots/{name}.json").exists() for name in names} == {True}


@pytest.mark.slow
def test_the_page_has_the_installed_javascript_and_no_address():
    assert (ROOT / plots_page.PAGE).read_text() == plots_page.page(), "`make plots-page` writes it"
    assert "src=" not in plots_page.TEMPLATE


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium: `make browser` installs it")
def test_pages_are_drawn_without_a_network(tmp_path):
    parts = [".dvc", "dvc.yaml", "params.yaml", "metrics"]
    for name in run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard", *parts).stdout.splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "git", "add", ".")
    run(tmp_path, "git", "commit", "--quiet", "-m", "results")
    curve = tmp_path / "metrics/curves/fine.csv"
    curve.write_text("".join(curve.read_text().splitlines(keepends=True)[:2]))  # one epoch of one seed
    run(tmp_path, "dvc", "plots", "diff", "--out", "plots")
    complaints = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        page.set_default_timeout(300_000)  # milliseconds: a busy machine is slow
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: complaints.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
        page.goto((tmp_path / "plots/index.html").as_uri())
        charts = page.locator(".vega-embed")
        for chart in charts.all():
            chart.locator("svg .role-mark path, svg .role-mark rect").first.wait_for(state="attached")
        stages = yaml.safe_load((tmp_path / "dvc.yaml").read_text())["stages"]
        assert charts.count() > len(stages)
        assert all(page.locator("img").evaluate_all("images => images.map(i => i.naturalWidth > 0)"))
        browser.close()
    assert not complaints
