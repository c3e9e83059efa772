"""Write one page with all results of the run: ``metrics/report.html``."""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.deploy import model_card
from cifar2.figures import canvas
from cifar2.figures import report as figures
from cifar2.networks import classifier
from cifar2.report import charts, page

METRICS, FIGURES, MODELS = Path("metrics"), Path("metrics/figures"), Path("data/models")
# The best test accuracy of the original report (one run, no interval), and its classes.
ORIGINAL, ORIGINAL_CLASSES = 0.848, {"airplane", "bird"}
# Hidden units in the figure, and misclassified images on the page.
N_UNITS, N_IMAGES = 48, 100
# The text columns of the tables.
TEXT = ("class", "configuration", "family", "name")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    parameters = params.load()
    metrics = {name: read(name) for name in ("prepare", "verify", "select")}
    families = {name: read(f"evaluate/{name}") for name in metrics["select"]["best_per_family"]}
    ranking, curves = rows("ranking"), rows("curves")
    mlps = [row for row in ranking if row["family"] == "mlp"]
    best = max(mlps, key=lambda row: float(row["val_accuracy"]))
    evaluated, about = files.read_tensors(Path("data/evaluated/final.safetensors"))
    classes = about["classes"]
    first_layer = draw_first_layer()
    images = {name: files.read(FIGURES / f"{name}.png") for name in ("samples", "near_duplicates")}
    values = {
        "classes": classes,
        "original": ORIGINAL if set(classes) == ORIGINAL_CLASSES else None,
        **metrics,
        "checks": parameters.verify,
        "final": read("evaluate/final"),
        "families": families,
        "mlp": families["mlp"],
        "ranking": ranking,
        "diverged": sorted(set(parameters.configs) - {row["name"] for row in ranking}),
        "reason": page.reason(ranking),
        "kind": model_card.kind(classifier.load(MODELS / "final.safetensors")[0]),
        "mlps": mlps,
        "n_near": sum(row["val_accuracy"] >= best["val_accuracy"] - best["val_accuracy_se"] for row in mlps),
        "steps": page.steps(families),
        "n_misclassified": len(evaluated["mistakes"]),
        "misclassified": page.misclassified(evaluated, classes, N_IMAGES),
    }
    by_name = {
        "val_loss": charts.curves(curves, "val_loss", "validation loss (cross-entropy)"),
        "val_accuracy": charts.curves(curves, "val_accuracy", "validation accuracy"),
        "train_loss": charts.curves(curves, "train_loss", "training loss (cross-entropy)"),
        "ranking": charts.ranking(ranking),
        "roc": charts.roc(rows("evaluate/final_roc"), classes),
        "calibration": charts.calibration(rows("evaluate/final_calibration")),
    }
    # All inputs are read before anything is written.
    canvas.write(FIGURES / "first_layer.png", first_layer)
    images["first_layer"] = files.read(FIGURES / "first_layer.png")
    urls = {name: page.data_url(content) for name, content in images.items()}
    files.write(METRICS / "report.html", page.render(values | {"images": urls}, by_name))


def read(name: str) -> dict[str, Any]:
    return files.read_json(METRICS / f"{name}.json")


def rows(name: str) -> list[dict[str, Any]]:
    return files.read_csv(METRICS / f"{name}.csv", TEXT)


def draw_first_layer() -> canvas.Figure:
    """The hidden units of the best MLP with the largest weights."""
    card, networks, _ = classifier.load(MODELS / "mlp.safetensors")
    weights = next(next(iter(networks.values())).parameters()).detach()
    largest = weights.norm(dim=1).argsort(descending=True, stable=True)[:N_UNITS]
    return figures.first_layer(weights[largest].view(-1, 3, 32, 32), f"{card.name}: weights of the first layer")


if __name__ == "__main__":
    errors.run(main)
