import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml

from cifar2 import files
from cifar2.dataset import splits
from cifar2.deploy import model_card
from cifar2.figures import report as figures
from cifar2.networks import classifier
from cifar2.report import page as report
from tests.conftest import ROOT, SIZES, random_split

PAGE, LAYER = Path("metrics/report.html"), Path("metrics/figures/first_layer.png")
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]
FAMILIES = ["mlp", "mlp_augmented", "cnn", "transfer"]


class Page(HTMLParser):
    """What a reader sees and what a browser would ask for.

    Attributes:
        attributes: of every tag, as (tag, name, value).
        text: of the page but its scripts and its style, with single spaces.
        tiles: the text of each tile.
        tables: the texts of the cells of each row of each table.
        scripts: their texts by id.
        style: what stands in it.
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
        assert self.open.pop() == tag, "every tag is closed by its own"

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


def table(path):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def percent(*shares):
    """As they stand on the page."""
    return " to ".join(f"{100 * share:.1f}" for share in shares) + " %"


def test_the_tiles_are_the_metrics(reported):
    verify, mlp, final = read("verify"), read("evaluate/mlp"), read("evaluate/final")
    assert page().tiles == [
        f"Test accuracy of the final model, {final['config']} {percent(final['test_accuracy'])} "
        f"95 % interval {percent(*final['test_accuracy_ci95'])}",
        "The original report\u2019s, one run 84.8 % an interval was not given",
        f"The original\u2019s network, with the setting that the rule picks, {mlp['config']} "
        f"{percent(mlp['subsets'][0]['seeds_mean'])} mean over 2 seeds, "
        f"95 % interval {percent(*mlp['subsets'][0]['seeds_ci95'])}",
        f"Backpropagation by hand against autograd {verify['backprop_vs_autograd_max_rel_error']:.0e} "
        "largest relative error",
    ]


def test_the_tables_are_the_metrics(reported):
    best = read("select")["best_per_family"]
    families = [
        [
            name,
            best[name],
            f"{e['subsets'][0]['seeds_mean']:.4f}",
            "{:.4f} to {:.4f}".format(*e["subsets"][0]["seeds_ci95"]),
            f"{e['subsets'][1]['seeds_mean']:.4f}",
            f"{e['subsets'][0]['roc_auc']:.4f}",
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
            f"{float(row['gap']):.4f}",
        ]
        for row in table("metrics/ranking.csv")
    ]
    assert {row[0] for row in families} == set(FAMILIES)
    balance = [
        [
            name,
            *(f"{n[name]:,} {100 * n[name] / sum(n.values()):.1f} %" for n in read("prepare")["class_counts"].values()),
        ]
        for name in ("airplane", "bird")
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
    assert [rows[1:] for rows in page().tables] == [families, balance, gradients, ranking, confusion]


def test_the_answers_are_the_metrics(reported):
    text, final, mlp, prepare = page().text, read("evaluate/final"), read("evaluate/mlp"), read("prepare")
    everything, unseen = final["subsets"]
    for wanted in (
        "60 training, 24 validation and 30 test images",
        f"{prepare['n_near_duplicates']} test images have a near-duplicate",
        f"the largest relative error is {read('verify')['backprop_vs_finite_difference_max_rel_error']:.0e}",
        f"With {mlp['n_parameters']:,} parameters for 60 images",
        f"{mlp['config']} reaches {percent(mlp['train_accuracy'])} on the training images",
        f"reaches {100 * final['test_accuracy']:.2f} % (95 % interval",
        f"The rule: {read('select')['rule']}. ",
        f"The area under the curve is {everything['roc_auc']:.4f}.",
        f"Expected calibration error: {everything['calibration_error']:.4f}.",
        f"accuracy is {unseen['accuracy']:.4f} instead of {final['test_accuracy']:.4f}.",
    ):
        assert wanted in text
    assert text.count("the test accuracy changes by") == len(FAMILIES) - 1
    for step in report.steps({name: read(f"evaluate/{name}") for name in read("select")["best_per_family"]}):
        told = f"changes by {step.gain:+.4f} ± {step.error:.4f} (one standard error): "
        assert told + ("signal." if step.is_signal else "not to be told from noise.") in text
    low, high = mlp["subsets"][0]["seeds_ci95"]
    place = "within" if low <= 0.848 <= high else "outside"
    assert (
        f"The original\u2019s own 0.848 on the test images lies {place} the interval of {mlp['config']} here." in text
    )
    augmented = read("evaluate/mlp_augmented")
    assert (
        f"the same network, {augmented['config']}, comes to {percent(augmented['train_accuracy'])} and "
        f"{percent(augmented['val_accuracy'])}." in text
    )


def test_a_configuration_that_diverged_is_named(to_report, run_stage):
    lines = Path("metrics/ranking.csv").read_text().splitlines()
    Path("metrics/ranking.csv").write_text("\n".join(line for line in lines if ",smooth," not in line) + "\n")
    run_stage("report.py")
    assert "smooth diverged, and is not ranked." in page().text
    assert "fine diverged" not in page().text


def test_what_kind_the_final_model_is_stands_at_the_top(reported):
    card, _, _ = classifier.load(Path("data/models/final.safetensors"))
    assert f"selected by its validation results: {card.configuration}, {model_card.kind(card)}. It was" in page().text


def test_every_mistake_of_the_final_model_is_in_the_gallery_the_most_confident_first(reported):
    kept, about = files.read_tensors(Path("data/evaluated/final.safetensors"))
    confidence, predicted = torch.softmax(kept["logits"][0].double(), 1).max(1)
    wanted = [
        f"{about['classes'][kept['labels'][i]]}, taken for {about['classes'][predicted[i]]} ({percent(confidence[i])})"
        for i in kept["mistakes"]
    ]
    assert len(wanted) > 2
    assert re.findall(r"\w+, taken for \w+ \([\d.]+ %\)", page().text) == wanted
    assert f"The {len(wanted)} mistakes" in page().text
    assert "final_predictions.csv" not in page().text
    sources = [value for tag, name, value in page().attributes if (tag, name) == ("img", "src")]
    assert sources[-1 - len(wanted) : -1] == report.thumbnails(kept["mistaken_images"])


def test_the_pictures_are_the_figures_and_each_is_described(reported):
    tags = page().attributes
    sources = [value for tag, name, value in tags if (tag, name) == ("img", "src")]
    for name in ("samples", "near_duplicates", "first_layer"):
        assert report.picture(Path(f"metrics/figures/{name}.png")) in sources
    assert len([value for tag, name, value in tags if (tag, name) == ("img", "alt") and value]) == len(sources)


def test_the_charts_have_a_place_each_and_words_beside_it(reported):
    found = page()
    specifications = json.loads(found.scripts["specifications"])
    places = {value for tag, name, value in found.attributes if name == "id" and value.startswith("chart-")}
    assert places == {f"chart-{name}" for name in specifications}
    rows = specifications["ranking"]["datasets"].values()
    assert {row["name"] for of_one in rows for row in of_one if "name" in row} == set(reported.params["configs"])


def test_the_links_lead_to_headings(reported):
    ids = [value for _, name, value in page().attributes if name == "id"]
    links = [value for tag, name, value in page().attributes if (tag, name) == ("a", "href")]
    assert len(links) == 8
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert len(set(ids)) == len(ids), "an id stands for one thing"


def test_it_needs_no_network_and_no_other_file(reported):
    found = page()
    for tag, name, value in found.attributes:
        if name in ("src", "srcset", "href", "action", "data", "poster", "background"):
            assert value.startswith(("data:", "#")), (tag, name, value)
    assert not re.search(r"@import|url\(", found.style)
    assert "{{" not in found.text + found.style
    assert "{%" not in found.text + found.style


def test_it_tells_nothing_of_this_machine(reported):
    for folder in (ROOT, reported.folder):
        assert str(folder) not in PAGE.read_text()


def test_a_second_run_writes_the_same_bytes(reported, run_stage):
    first = reported.snapshot()
    for path in (PAGE, LAYER):
        path.unlink()
    run_stage("report.py")
    assert reported.snapshot() == first


def test_it_reads_what_dvc_knows_of_and_nothing_else(reported, run_stage):
    first = PAGE.read_bytes()
    known = [Path(dep) for dep in DVC["deps"]]
    for path in [path for path in reported.folder.rglob("*") if path.is_file() and path.name != "params.yaml"]:
        place = path.relative_to(reported.folder)
        if not any(place.is_relative_to(dep) for dep in known):
            path.unlink()
    run_stage("report.py")
    assert PAGE.read_bytes() == first
    assert DVC["outs"] == [str(PAGE)]
    assert list(DVC["plots"][0]) == [str(LAYER)]


def test_the_first_layer_is_that_of_the_best_perceptron_the_largest_units_first(reported, run_stage, monkeypatch):
    drawn = []
    real = figures.first_layer
    monkeypatch.setattr(figures, "first_layer", lambda *arguments: drawn.append(arguments) or real(*arguments))
    run_stage("report.py")
    ((units, title),) = drawn
    card, networks, _ = classifier.load(Path("data/models/mlp.safetensors"))
    weights = next(networks["seed0"].parameters())
    assert title == f"{card.configuration}, the first layer"
    assert units.shape == (8, 3, 32, 32)
    assert torch.equal(units.flatten(1), weights[weights.norm(dim=1).argsort(descending=True)])


@pytest.mark.parametrize(
    "missing",
    [
        *(dep for dep in DVC["deps"] if not dep.endswith((".py", ".html", "metrics/evaluate"))),
        *(f"metrics/evaluate/{name}" for name in ("mlp.json", "final.json", "final_roc.csv", "final_calibration.csv")),
    ],
)
def test_a_missing_file_is_one_line_and_nothing_is_written(to_report, fails_with, missing):
    Path(missing).unlink()
    before = to_report.snapshot()
    assert f"{missing} is missing; `dvc repro` makes it" in fails_with("report.py")
    assert to_report.snapshot() == before


def test_a_final_model_without_mistakes_has_an_empty_gallery(to_report, run_stage):
    path = Path("data/evaluated/final.safetensors")
    kept, about = files.read_tensors(path)
    none = {name: kept[name][:0] for name in ("mistakes", "mistaken_images")}
    files.write_tensors(path, kept | none, about)
    run_stage("report.py")
    assert "The 0 mistakes" in page().text
    assert "taken for" not in page().text


def test_of_many_mistakes_the_most_confident_are_shown(to_report, run_stage):
    path = Path("data/evaluated/final.safetensors")
    kept, about = files.read_tensors(path)
    n = len(kept["mistakes"])
    copies = -(-1100 // n)
    many = {"mistakes": kept["mistakes"].repeat_interleave(copies)}
    many["mistaken_images"] = kept["mistaken_images"].repeat_interleave(copies, 0)
    files.write_tensors(path, kept | many, about)
    run_stage("report.py")
    found = page()
    assert (
        f"The 100 most confident of {copies * n:,} mistakes metrics/evaluate/final_predictions.csv lists" in found.text
    )
    assert found.text.count("taken for") == 100
    assert "100 shown" in found.text
    sources = [value for tag, name, value in found.attributes if (tag, name) == ("img", "src")]
    assert sources[-101:-1] == report.thumbnails(many["mistaken_images"][:100])
    assert f" correct, {copies * n:,} misclassified." in found.text


@pytest.mark.parametrize("classes", [["bird", "airplane"], ["cat", "dog"]])
def test_only_the_originals_classes_are_compared_with_the_original(to_report, run_stage, classes):
    path = Path("data/evaluated/final.safetensors")
    kept, about = files.read_tensors(path)
    files.write_tensors(path, kept, about | {"classes": classes})
    run_stage("report.py")
    found = page()
    is_original = "bird" in classes
    assert ("The original report\u2019s, one run" in found.text) == is_original
    assert ("0.848" in found.text, "84.8" in found.text) == (is_original, is_original)
    assert len(found.tiles) == 3 + is_original
    assert re.search(r"[.] From \w+ to \w+ the test accuracy changes", found.text)


def test_a_best_of_the_five_that_stands_alone_is_told_as_one(to_report, run_stage):
    rows = table("metrics/ranking.csv")
    of_five = [row for row in rows if row["family"] == "mlp"]
    for i, row in enumerate(of_five):
        row |= {"val_accuracy": 0.9 - 0.1 * i, "val_accuracy_se": 0.05}
    files.write_csv(Path("metrics/ranking.csv"), list(rows[0]), [list(row.values()) for row in rows])
    run_stage("report.py")
    assert "about 0.050: no other is within one standard error of the best." in page().text
    of_five[1]["val_accuracy"] = 0.86
    files.write_csv(Path("metrics/ranking.csv"), list(rows[0]), [list(row.values()) for row in rows])
    run_stage("report.py")
    assert "about 0.050: 2 of them, the best included, are within one standard error of the best" in page().text


def test_three_classes_work_too(to_report, run_stage):
    classes = ("airplane", "bird", "cat")
    path = Path("data/models/final.safetensors")
    card, _, accuracies = classifier.load(path)
    shape = classifier.MyNetShape(n_l=(3072, 8, 3), activation="relu")
    card = card.model_copy(update={"shape": shape, "features": None, "classes": classes})
    classifier.save(path, card, {"final": classifier.build(shape, seed=0)}, accuracies)
    splits.save(Path("data/prepared/test.safetensors"), random_split(SIZES["test"], 2, classes))
    run_stage("evaluate.py", "final")
    run_stage("report.py")
    found = page()
    assert "3 classes of CIFAR-10 The classes: airplane, bird, cat." in found.text
    assert "The area under the curves, on average, is" in found.text
    matrix = read("evaluate/final")["confusion_matrix"]
    assert [len(row) for row in found.tables[-1]] == [2, 3, 4, 4, 4]
    shades = [value for _, name, value in found.attributes if name == "style" and value.startswith("--fraction")]
    assert shades == [f"--fraction: {n / max(1, sum(row)):.3f}" for row in matrix for n in row]
    specifications = json.loads(found.scripts["specifications"])
    for name in classes:
        assert any(name in json.dumps(rows) for rows in specifications["roc"]["datasets"].values())
