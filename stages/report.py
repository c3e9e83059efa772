"""Write one page that shows what the whole run found: ``metrics/report.html``."""

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

# isort: split
import altair as alt

METRICS, FIGURES = Path("metrics"), Path("metrics/figures")
# The best of the report that this began as, and its classes: one run, without an interval.
ORIGINAL, ORIGINAL_CLASSES = 0.848, {"airplane", "bird"}
N_UNITS = 48
# Misclassified images on the page.
N_MISTAKES = 100
# The columns that are text.
TEXT = ("class", "configuration", "family", "name")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    settings = params.load()
    prepare, verify, select = (files.read_json(METRICS / f"{name}.json") for name in ("prepare", "verify", "select"))
    names = [*select["best_per_family"], "final"]
    evaluated = {name: files.read_json(METRICS / f"evaluate/{name}.json") for name in names}
    final, families = evaluated["final"], {name: evaluated[name] for name in select["best_per_family"]}
    ranking, curves = rows(METRICS / "ranking.csv"), rows(METRICS / "curves.csv")
    five = [row for row in ranking if row["family"] == "mlp"]
    best = max(five, key=lambda row: float(row["val_accuracy"]))
    tensors, about = files.read_tensors(Path("data/evaluated/final.safetensors"))
    units = first_layer()
    facts: dict[str, Any] = {
        "classes": about["classes"],
        "original": ORIGINAL if set(about["classes"]) == ORIGINAL_CLASSES else None,
        "prepare": prepare,
        "verify": verify,
        "select": select,
        "checks": settings.verify,
        "final": final,
        "families": families,
        "mlp": families["mlp"],
        "ranking": ranking,
        "diverged": sorted(set(settings.configs) - {row["name"] for row in ranking}),
        "reason": page.reason(ranking),
        "kind": model_card.kind(classifier.load(Path("data/models/final.safetensors"))[0]),
        "five": five,
        "n_near": sum(row["val_accuracy"] >= best["val_accuracy"] - best["val_accuracy_se"] for row in five),
        "steps": page.steps(families),
        "n_mistakes": len(tensors["mistakes"]),
        "mistakes": page.mistakes(tensors, about["classes"], N_MISTAKES),
        "pictures": {name: page.picture(FIGURES / f"{name}.png") for name in ("samples", "near_duplicates")},
    }
    drawn: dict[str, alt.Chart | alt.LayerChart] = {
        "val_loss": charts.curves(curves, "val_loss", "validation loss (cross-entropy)"),
        "val_accuracy": charts.curves(curves, "val_accuracy", "validation accuracy"),
        "train_loss": charts.curves(curves, "train_loss", "training loss (cross-entropy)"),
        "ranking": charts.ranking(ranking),
        "roc": charts.roc(rows(METRICS / "evaluate/final_roc.csv"), about["classes"]),
        "calibration": charts.calibration(rows(METRICS / "evaluate/final_calibration.csv")),
    }
    # Everything is read: what is written now is written whole.
    canvas.write(FIGURES / "first_layer.png", units)
    facts["pictures"]["first_layer"] = page.picture(FIGURES / "first_layer.png")
    files.write(METRICS / "report.html", page.render(facts, drawn))


def rows(path: Path) -> list[dict[str, Any]]:
    return files.read_csv(path, TEXT)


def first_layer() -> canvas.Figure:
    """The units of MyNet with the largest weights."""
    card, networks, _ = classifier.load(Path("data/models/mlp.safetensors"))
    weights = next(next(iter(networks.values())).parameters()).detach()
    largest = weights.norm(dim=1).argsort(descending=True, stable=True)[:N_UNITS]
    return figures.first_layer(weights[largest].view(-1, 3, 32, 32), f"{card.name}, the first layer")


if __name__ == "__main__":
    errors.run(main)
