"""Write one page with all results of the run: ``metrics/report.html``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.deploy import model_card
from cifar2.figures import canvas
from cifar2.figures import report as figures
from cifar2.mynet import MyNet
from cifar2.networks import classifier
from cifar2.report import charts, original, page

# isort: split
import altair as alt

METRICS, FIGURES, MODELS = Path("metrics"), Path("metrics/figures"), Path("data/models")
# Hidden units in the figure, and misclassified images on the page.
N_UNITS, N_IMAGES = 48, 100
# The text columns of the tables.
TEXT = ("class", "configuration", "family", "name")
# Classes of which the page shows the whole confusion matrix as a table, and those with a ROC curve each.
N_IN_TABLE, N_CURVES = 20, 10
IMAGES = ("samples", "near_duplicates", "untrained", "mistakes_final_mlp", "occlusion_final")
# Test images on the map, evenly spaced over the test set.
N_POINTS = 2000


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    parameters = params.load()
    metrics = {name: read(name) for name in ("prepare", "near_duplicates", "verify", "select")}
    families = {name: read(f"evaluate/{name}") for name in metrics["select"]["best_per_family"]}
    evaluated = {name: files.read_tensors(Path(f"data/evaluated/{name}.safetensors")) for name in (*families, "final")}
    final, about = evaluated["final"]
    classes, ranking = about["classes"], rows("ranking")
    own_images = parameters.data.own_images
    explained, about_map = files.read_tensors(Path("data/explained.safetensors"))
    test = splits.load(Path("data/prepared/test.safetensors"))
    points = page.points(final, explained["positions"], test.x, classes, N_POINTS)
    card, networks, _ = classifier.load(MODELS / "mlp.safetensors")
    mlp = next(iter(networks.values()))
    assert isinstance(mlp, MyNet)  # noqa: S101 (for mypy)
    values = {
        "classes": classes,
        "original": original if {*classes} == original.CLASSES and not own_images else None,
        "own_images": own_images,
        "chosen": read(f"evaluate/{original.CHOSEN}"),
        **metrics,
        "parameters": parameters,
        "final": read("evaluate/final"),
        "final_mlp": read("evaluate/final_mlp"),
        "families": families,
        "mlp": families["mlp"],
        "mlps": [row for row in ranking if row["family"] == "mlp"],
        "layers": page.layers(mlp),
        "ranking": ranking,
        "diverged": sorted(set(parameters.configs) - {row["name"] for row in ranking}),
        "reason": page.reason(ranking, metrics["select"]["resamples"]),
        "kind": model_card.kind(classifier.load(MODELS / "final.safetensors")[0]),
        "steps": page.steps({name: evaluated[name][0] for name in families}),
        "n_misclassified": len(final["mistakes"]),
        "misclassified": page.misclassified(final, classes, N_IMAGES),
        "confusions": page.confusions,
        "n_points": len(points),
        "variance": about_map["variance"],
    }
    # Of many classes, the curves of those with the lowest recall.
    recall = {m["class"]: m["recall"]["mean"] for m in values["final"]["subsets"][0]["per_class"]}
    curved = classes if len(classes) <= N_CURVES else sorted(classes, key=recall.__getitem__)[:N_CURVES]
    by_name = drawn(ranking, points, curved)
    weights = mlp.w(1).detach()
    largest = weights.norm(dim=1).argsort(descending=True, stable=True)[:N_UNITS]
    first_layer = figures.first_layer(
        weights[largest].view(-1, 3, card.image_size, card.image_size), f"{card.name}: weights of the first layer"
    )
    shown = IMAGES if len(classes) <= N_IN_TABLE else (*IMAGES, "confusion_final", "confusion_final_mlp")
    images = {name: files.read(FIGURES / f"{name}.png") for name in shown}
    # All inputs are read before anything is written.
    canvas.write(FIGURES / "first_layer.png", first_layer)
    images["first_layer"] = files.read(FIGURES / "first_layer.png")
    urls = {name: page.data_url(content) for name, content in images.items()}
    files.write(METRICS / "report.html", page.render(values | {"images": urls}, by_name))


def drawn(ranking: charts.Rows, points: charts.Rows, curved: Sequence[str]) -> dict[str, alt.Chart | alt.LayerChart]:
    """The charts by name; ``curved`` are the classes with a curve and a colour of their own."""
    curves = rows("curves")
    return {
        "val_loss": charts.curves(curves, "val_loss", "validation loss (cross-entropy)"),
        "val_accuracy": charts.curves(curves, "val_accuracy", "validation accuracy"),
        "train_loss": charts.curves(curves, "train_loss", "training loss (cross-entropy)"),
        "train_accuracy": charts.curves(curves, "train_accuracy", "training accuracy"),
        "ranking": charts.ranking(ranking),
        "roc": charts.roc([row for row in rows("evaluate/final_roc") if row["class"] in curved], curved),
        "calibration": charts.calibration(rows("evaluate/final_calibration")),
        "map": charts.test_set(points, curved),
    }


def read(name: str) -> dict[str, Any]:
    return files.read_json(METRICS / f"{name}.json")


def rows(name: str) -> list[dict[str, Any]]:
    return files.read_csv(METRICS / f"{name}.csv", TEXT)


if __name__ == "__main__":
    errors.run(main)
