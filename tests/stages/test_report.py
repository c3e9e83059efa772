import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml

from cifar2 import files, params
from cifar2.dataset import splits
from cifar2.deploy import model_card
from cifar2.figures import report as figures
from cifar2.networks import classifier
from cifar2.report import page as report
from tests.conftest import MODELS, ROOT, SIZES, random_split, table

PAGE, LAYER = Path("metrics/report.html"), Path("metrics/figures/first_layer.png")
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]
FAMILIES = ["mlp", "mlp_augmented", "cnn", "transfer"]


class Page(HTMLParser):
    """The visible texts of a page, and all attributes of its tags.

    Attributes:
        attributes: every attribute, as (tag, name, value).
        text: the text outside scripts and style, with single spaces.
        tiles: the text of each tile.
        tables: the text of each cell, by table and row.
        scripts: the scripts by id.
        style: the style sheet.
    """

    def __init__(self, html):
        super().__init__()
        self.attributes, self.text, self.tiles, self.tables, self.scripts, self.style = [], "", [], [], {}, ""
        self.open, self.script = [], None
        self.feed(html)
        self.text, self.tiles, self.tables = (
            " ".join(self.text.split()),
            [" ".join(tile.split()) for tile in self.tiles],
            [[[" ".join(cell.split()) for cell in row] for row in rows] for rows in self.tables],
        )

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *attribute) for attribute in attributes]
        if tag not in ("meta", "link", "img", "input"):
            self.open.append(tag)
        if tag == "script":
            self.script = dict(attributes).get("id", len(self.scripts))
            self.scripts[self.script] = ""
        elif tag == "div" and self.open[-2] == "dl":
            self.tiles.append("")
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "tags are nested"

    def handle_data(self, text):
        if self.open[-1:] == ["script"]:
            self.scripts[self.script] += text
        elif self.open[-1:] == ["style"]:
            self.style += text
        else:
            self.text += text
            if "dl" in self.open and "div" in self.open:
                self.tiles[-1] += text
            if {"td", "th"} & set(self.open):
                self.tables[-1][-1][-1] += text


def page():
    return Page(PAGE.read_text())


def read(name):
    return json.loads(Path(f"metrics/{name}.json").read_text())


def percent(*fractions):
    """Fractions as percentages, in the page's format."""
    return " to ".join(f"{100 * fraction:.1f}" for fraction in fractions) + " %"


def test_the_tiles_are_the_metrics(reported):
    verify, mlp, final = read("verify"), read("evaluate/mlp"), read("evaluate/final")
    assert page().tiles == [
        "The original report: fine, one run 84.8 % 95 % interval 83.2 to 86.3 %",
        f"The same network here, selected configuration {mlp['config']} {percent(mlp['test_accuracy'])} "
        f"mean over 2 seeds, 95 % interval {percent(*mlp['test_accuracy_ci95'])}",
        f"The final model, {final['config']} {percent(final['test_accuracy'])} "
        f"95 % interval {percent(*final['test_accuracy_ci95'])}",
        f"Hand-written backpropagation against autograd {verify['backprop_vs_autograd_max_rel_error']:.0e} "
        "largest relative error",
    ]


def bounds(interval):
    low, high = interval
    return f"{low:.4f} to {high:.4f}"


def kind(evaluated):
    return evaluated["subsets"][0]["accuracy"]["kind"]


def test_the_original_experiment_comes_first(reported):
    accuracies, configurations, layers, confusion, assumptions = (rows[1:] for rows in page().tables[:5])
    chosen, mlp, final = (read(f"evaluate/{name}") for name in ("fine", "mlp", "final_mlp"))
    assert accuracies == [
        ["the original report, one run", "fine", "0.8480", "0.8316 to 0.8631", "Wilson, from its counts"],
        *(
            [what, e["config"], f"{e['test_accuracy']:.4f}{deviation}", bounds(e["test_accuracy_ci95"]), kind(e)]
            for what, e, deviation in (
                ("its choice here, mean of 2 seeds", chosen, f" SD {chosen['subsets'][0]['accuracy']['std']:.4f}"),
                ("the selected configuration, mean of 2 seeds", mlp, f" SD {mlp['subsets'][0]['accuracy']['std']:.4f}"),
                ("final model of the family, one run", final, ""),
            )
        ),
    ]
    rows = [row for row in table("metrics/ranking.csv") if row["family"] == "mlp"]
    for shown, row in zip(configurations, rows, strict=True):
        c = reported.params["configs"][row["name"]]
        assert shown[:4] == [row["name"], *(f"{c[key]:g}" for key in ("lr", "momentum", "weight_decay"))]
        assert shown[-2] == f"{float(row['gap']):.4f} ± {float(row['gap_se']):.4f}"
        assert shown[-1] == f"{100 * float(row['fraction_of_family']):.0f} %"
    assert layers == [
        ["1", "3,072", "8", "24,584"],
        ["2", "8", "8", "72"],
        ["3", "8", "2", "18"],
        ["all", "", "", "24,674"],
    ]
    assert [row[0] for row in confusion[1:]] == ["airplane", "bird"]
    assert assumptions[0] == ["epochs, batch size", "2 epochs of batches of 16 images, in a new order each epoch"]
    place = "within" if chosen["one_new_run_pi95"][0] <= 0.848 <= chosen["one_new_run_pi95"][1] else "outside"
    assert f"would reach {bounds(chosen['one_new_run_pi95'])} on the same test images" in page().text
    assert f"one run, 0.848, is {place} it." in page().text


def test_the_tables_are_the_metrics(reported):
    best = read("select")["best_per_family"]
    families = [
        [
            name,
            best[name],
            f"{e['test_accuracy']:.4f}",
            bounds(e["test_accuracy_ci95"]),
            f"{e['subsets'][1]['accuracy']['mean']:.4f}",
            f"{e['subsets'][0]['roc_auc']['mean']:.4f}",
            f"{e['n_parameters']:,}",
        ]
        for name, e in ((name, read(f"evaluate/{name}")) for name in best)
    ]
    ranking = [
        [
            row["rank"],
            row["name"],
            row["family"],
            f"{float(row['val_accuracy']):.4f} ± {float(row['val_accuracy_se']):.4f}",
            f"{float(row['val_loss']):.3f} ± {float(row['val_loss_se']):.3f}",
            f"{float(row['bad_epoch_loss']):.3f}",
            f"{float(row['train_accuracy']):.4f}",
            f"{float(row['gap']):.4f} ± {float(row['gap_se']):.4f}",
            f"{100 * float(row['fraction']):.0f} %",
        ]
        for row in table("metrics/ranking.csv")
    ]
    assert {row[0] for row in families} == set(FAMILIES)
    prepare = read("prepare")
    balance = [
        [name, *(f"{n[name]:,} {100 * n[name] / sum(n.values()):.1f} %" for n in prepare["class_counts"].values())]
        for name in ("airplane", "bird")
    ]
    ten = [
        [name, *(f"{n[name]:,}" for n in prepare["all_classes"].values())] for name in prepare["all_classes"]["train"]
    ]
    verify = reported.params["verify"]
    gradients = [
        [f"{row['layer']}, {row['activation']}", f"{row['autograd']:.1e}", f"{row['finite_difference']:.1e}"]
        for row in read("verify")["by_layer"]
    ] + [["tolerance", f"{verify['autograd_tolerance']:.0e}", f"{verify['finite_difference_tolerance']:.0e}"]]
    confusion = [
        ["airplane", "bird"],
        *(
            [name, *(f"{n:,} {100 * n / sum(counts):.1f} %" for n in counts)]
            for name, counts in zip(("airplane", "bird"), read("evaluate/final")["confusion_matrix"], strict=True)
        ),
    ]
    per_class = [
        [
            m["class"],
            f"{prepare['class_counts']['test'][m['class']]:,}",
            *(f"{m[key]['mean']:.4f} {bounds(m[key]['ci95'])}" for key in ("recall", "precision")),
            f"{m['f1']['mean']:.4f}",
        ]
        for m in read("evaluate/final")["subsets"][0]["per_class"]
    ]
    assert [rows[1:] for rows in page().tables[5:]] == [
        families,
        balance,
        ten,
        gradients,
        ranking,
        confusion,
        per_class,
    ]


def test_the_answers_contain_the_metrics(reported):
    text, final, mlp = page().text, read("evaluate/final"), read("evaluate/mlp")
    all_images, unseen = final["subsets"]
    calibration, select = all_images["calibration_error"], read("select")
    for expected in (
        "60 training, 24 validation and 30 test images",
        "3 test images have a near-duplicate in the training set (2) or the validation set (1)",
        "5 have one within the test set. 4 validation images have one in the training set",
        f"the largest relative error is {read('verify')['backprop_vs_finite_difference_max_rel_error']:.0e}",
        f"With {mlp['n_parameters']:,} parameters for 60 images",
        f"{mlp['config']} reaches {percent(mlp['train_accuracy'])} on the training images",
        f"reaches {100 * final['test_accuracy']:.2f} % on the test images (95 % interval",
        f"it reaches {100 * read('evaluate/final_mlp')['test_accuracy']:.2f} % on the test images (95 % interval",
        f"The rule: {select['rule']}. ",
        f"selects {mlp['config']} on {100 * select['fraction_of_family'][mlp['config']]:.0f} %.",
        f"The area under the curve is {all_images['roc_auc']['mean']:.4f}.",
        f"Expected calibration error: {calibration['mean']:.4f} (95 % interval {bounds(calibration['ci95'])})",
        f"these confidences would have {all_images['calibration_error_if_perfect']:.4f}, by chance",
        f"accuracy of the final model is {unseen['accuracy']['mean']:.4f} instead of {final['test_accuracy']:.4f}.",
    ):
        assert expected in text
    assert text.count("the test accuracy changes by") == len(FAMILIES) - 1
    evaluated = {name: files.read_tensors(Path(f"data/evaluated/{name}.safetensors"))[0] for name in FAMILIES}
    for step in report.steps(evaluated):
        low, high = step.gain.interval()
        change = f"changes by {step.gain.mean:+.4f} (95 % t interval {low:+.4f} to {high:+.4f}, image by image"
        assert change in text
    augmented = read("evaluate/mlp_augmented")
    assert (
        f"the same network, {augmented['config']}, reaches {percent(augmented['train_accuracy'])} and "
        f"{percent(augmented['val_accuracy'])}." in text
    )


def test_a_configuration_that_diverged_is_named(to_report, run_stage):
    lines = Path("metrics/ranking.csv").read_text().splitlines()
    Path("metrics/ranking.csv").write_text("\n".join(line for line in lines if ",smooth," not in line) + "\n")
    run_stage("report.py")
    assert "smooth diverged, and is not ranked." in page().text
    assert "fine diverged" not in page().text


def test_the_page_starts_with_the_kind_of_the_final_model(reported):
    card, _, _ = classifier.load(Path("data/models/final.safetensors"))
    assert f"The final model is {card.name}, {model_card.kind(card)}. It was selected" in page().text


def test_the_gallery_starts_with_the_most_confident(reported):
    evaluated, about = files.read_tensors(Path("data/evaluated/final.safetensors"))
    confidence, predicted = torch.softmax(evaluated["logits"][0].double(), 1).max(1)
    classes, labels = about["classes"], evaluated["labels"]
    expected = [
        f"{classes[labels[i]]}, predicted {classes[predicted[i]]} ({percent(confidence[i])})"
        for i in evaluated["mistakes"]
    ]
    assert len(expected) > 2
    assert re.findall(r"\w+, predicted \w+ \([\d.]+ %\)", page().text) == expected
    assert f"The {len(expected)} misclassified images" in page().text
    assert "final_predictions.csv" not in page().text
    sources = [value for tag, name, value in page().attributes if (tag, name) == ("img", "src")]
    assert sources[-2 - len(expected) : -2] == report.thumbnails(evaluated["mistaken_images"])


def test_the_images_are_the_figures_and_described(reported):
    tags = page().attributes
    sources = [value for tag, name, value in tags if (tag, name) == ("img", "src")]
    for name in ("samples", "near_duplicates", "untrained", "mistakes_final_mlp", "first_layer"):
        assert report.data_url(Path(f"metrics/figures/{name}.png").read_bytes()) in sources
    assert len([value for tag, name, value in tags if (tag, name) == ("img", "alt") and value]) == len(sources)


def test_every_chart_has_its_element(reported):
    shown = page()
    specifications = json.loads(shown.scripts["specifications"])
    elements = {value for tag, name, value in shown.attributes if name == "id" and value.startswith("chart-")}
    assert elements == {f"chart-{name}" for name in specifications}
    rows = specifications["ranking"]["datasets"].values()
    assert {row["name"] for of_one in rows for row in of_one if "name" in row} == set(reported.params["configs"])


def test_links_lead_to_headings(reported):
    ids = [value for _, name, value in page().attributes if name == "id"]
    links = [value for tag, name, value in page().attributes if (tag, name) == ("a", "href")]
    assert len(links) == 14
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert len(set(ids)) == len(ids), "ids are unique"


def test_the_page_needs_no_network_and_no_other_file(reported):
    shown = page()
    for tag, name, value in shown.attributes:
        if name in ("src", "srcset", "href", "action", "data", "poster", "background"):
            assert value.startswith(("data:", "#")), (tag, name, value)
    assert not re.search(r"@import|url\(", shown.style)
    assert "{{" not in shown.text + shown.style
    assert "{%" not in shown.text + shown.style


def test_the_page_names_no_path_of_this_machine(reported):
    for folder in (ROOT, reported.folder):
        assert str(folder) not in PAGE.read_text()


def test_a_second_run_from_its_dependencies_writes_the_same(reported, run_stage):
    first = PAGE.read_bytes(), LAYER.read_bytes()
    known = [Path(dep) for dep in DVC["deps"]]
    for path in [path for path in reported.folder.rglob("*") if path.is_file() and path.name != "params.yaml"]:
        place = path.relative_to(reported.folder)
        if not any(place.is_relative_to(dep) for dep in known):
            path.unlink()
    run_stage("report.py")
    assert (PAGE.read_bytes(), LAYER.read_bytes()) == first
    assert DVC["outs"] == [str(PAGE)]
    assert list(DVC["plots"][0]) == [str(LAYER)]


def test_the_first_layer_shows_the_best_mlps_largest_units(reported, run_stage, monkeypatch):
    drawn = []
    real = figures.first_layer
    monkeypatch.setattr(figures, "first_layer", lambda *arguments: drawn.append(arguments) or real(*arguments))
    run_stage("report.py")
    ((units, title),) = drawn
    card, networks, _ = classifier.load(Path("data/models/mlp.safetensors"))
    weights = next(networks["seed0"].parameters())
    assert title == f"{card.name}: weights of the first layer"
    assert units.shape == (8, 3, 32, 32)
    assert torch.equal(units.flatten(1), weights[weights.norm(dim=1).argsort(descending=True)])


@pytest.mark.parametrize("missing", ["metrics/figures/near_duplicates.png", "metrics/figures/samples.png"])
def test_a_missing_figure_is_one_line_and_writes_nothing(to_report, fails_with, missing):
    Path(missing).unlink()
    before = to_report.snapshot()
    assert f"{missing} is missing; `dvc repro` makes it" in fails_with("report.py")
    assert to_report.snapshot() == before


def test_a_perfect_final_model_has_an_empty_gallery(to_report, run_stage):
    path = Path("data/evaluated/final.safetensors")
    evaluated, about = files.read_tensors(path)
    none = {name: evaluated[name][:0] for name in ("mistakes", "mistaken_images")}
    files.write_tensors(path, evaluated | none, about)
    run_stage("report.py")
    assert "The 0 misclassified images" in page().text
    assert ", predicted" not in page().text


def test_a_long_gallery_shows_the_most_confident_images(to_report, run_stage):
    path = Path("data/evaluated/final.safetensors")
    evaluated, about = files.read_tensors(path)
    n = len(evaluated["mistakes"])
    copies = -(-1100 // n)
    many = {"mistakes": evaluated["mistakes"].repeat_interleave(copies)}
    many["mistaken_images"] = evaluated["mistaken_images"].repeat_interleave(copies, 0)
    files.write_tensors(path, evaluated | many, about)
    run_stage("report.py")
    shown = page()
    assert (
        f"The 100 most confident of {copies * n:,} misclassified images metrics/evaluate/final_predictions.csv lists"
        in shown.text
    )
    assert shown.text.count(", predicted") == 100
    assert "100 shown" in shown.text
    sources = [value for tag, name, value in shown.attributes if (tag, name) == ("img", "src")]
    assert sources[-102:-2] == report.thumbnails(many["mistaken_images"][:100])
    assert f" correct, {copies * n:,} misclassified." in shown.text


@pytest.mark.parametrize("classes", [["bird", "airplane"], ["cat", "dog"]])
def test_other_classes_are_not_compared_with_the_original(to_report, run_stage, classes):
    path = Path("data/evaluated/final.safetensors")
    evaluated, about = files.read_tensors(path)
    files.write_tensors(path, evaluated, about | {"classes": classes})
    run_stage("report.py")
    shown = page()
    is_original = "bird" in classes
    assert ("The original report: fine, one run 84.8" in shown.text) == is_original
    assert ("0.848" in shown.text, "84.8" in shown.text) == (is_original, is_original)
    assert len(shown.tiles) == 3 + is_original
    assert re.search(r"From \w+ to \w+ the test accuracy changes", shown.text)


def test_a_page_of_three_classes_names_them(to_report, run_stage):
    classes = ("airplane", "bird", "cat")
    path = Path("data/models/final.safetensors")
    card, _, accuracies = classifier.load(path)
    mlp = to_report.params["configs"]["fine"]
    card = card.model_copy(
        update={"configuration": params.Mlp(**mlp), "n_l": (3072, 8, 3), "features": None, "classes": classes}
    )
    classifier.save(path, card, {"final": classifier.build(card, seed=0)}, accuracies)
    splits.save(Path("data/prepared/test.safetensors"), random_split(SIZES["test"], 2, classes))
    prepare = read("prepare")
    prepare["class_counts"] = {name: dict.fromkeys(classes, 10) for name in SIZES}
    files.write_json(Path("metrics/prepare.json"), prepare)
    run_stage("evaluate.py", MODELS["final"])
    run_stage("report.py")
    shown = page()
    assert "3 classes of CIFAR-10 The classes: airplane, bird, cat." in shown.text
    assert "The area under the curves, on average, is" in shown.text
    matrix = read("evaluate/final")["confusion_matrix"]
    assert [len(row) for row in shown.tables[-2]] == [2, 3, 4, 4, 4]
    shades = [value for _, name, value in shown.attributes if name == "style" and value.startswith("--fraction")]
    assert shades[-9:] == [f"--fraction: {n / max(1, sum(row)):.3f}" for row in matrix for n in row]
    specifications = json.loads(shown.scripts["specifications"])
    for name in classes:
        assert any(name in json.dumps(rows) for rows in specifications["roc"]["datasets"].values())


def test_a_page_of_own_images_says_nothing_of_cifar10(to_report, run_stage):
    to_report.params["data"] |= {"sources": ["images"], "near_duplicates": False}
    to_report.write_params()
    files.write_json(
        Path("metrics/prepare.json"), read("prepare") | {"own_images": True, "unreadable": ["a.png is empty"]}
    )
    files.write_json(Path("metrics/near_duplicates.json"), {})
    Path("data/prepared/near_duplicates.csv").write_text("test_index,other_set,other_index,mirrored,similarity\n")
    for model in MODELS.values():
        run_stage("evaluate.py", model)
    run_stage("report.py")
    text = page().text
    assert not re.search("CIFAR|original|student|near-duplicate|ten classes", text)
    assert "Unreadable images, which were left out: 1." in text


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "metrics/report.html").exists(), reason="`dvc repro` makes the report")
def test_the_report_of_the_real_images_has_less_than_6_megabytes():
    assert (ROOT / "metrics/report.html").stat().st_size < 6e6
