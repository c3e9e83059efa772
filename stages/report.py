"""Write one page that shows what the whole run found: ``metrics/report.html``."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
import torch
from matplotlib.figure import Figure

from cifar2 import charts, errors, figures, files, models, params, report

METRICS, FIGURES = Path("metrics"), Path("metrics/figures")
# The five configurations' best in the report that this began as: one run, without an interval.
ORIGINAL = {"train": 0.95, "val": 0.85, "test": 0.848}
N_UNITS = 48
SECTIONS = {
    "results": "Results",
    "data": "Data",
    "proof": "Proof",
    "training": "Training",
    "selection": "Selection",
    "evaluation": "Evaluation",
    "weights": "First layer",
    "questions": "Questions",
}


def main() -> None:
    settings = params.load()
    prepare, verify, select = (
        files.read_json(METRICS / f"{name}.json", ()) for name in ("prepare", "verify", "select")
    )
    names = [*select["best_per_family"], "final"]
    evaluated = {name: files.read_json(METRICS / f"evaluate/{name}.json", ()) for name in names}
    final, families = evaluated["final"], {name: evaluated[name] for name in select["best_per_family"]}
    ranking, curves = rows(METRICS / "ranking.csv"), rows(METRICS / "curves.csv")
    five = [row for row in ranking if row["family"] == "mlp"]
    best = max(five, key=lambda row: float(row["val_accuracy"]))
    tolerances = {
        "autograd": settings.verify.autograd_tolerance,
        "finite_difference": settings.verify.finite_difference_tolerance,
    }
    tensors, about = files.read_tensors(Path("data/evaluated/final.safetensors"))
    units = first_layer()
    facts: dict[str, Any] = {
        "classes": about["classes"],
        "sections": SECTIONS.items(),
        "original": ORIGINAL,
        "prepare": prepare,
        "verify": verify,
        "select": select,
        "n_sgd_steps": settings.verify.sgd_steps,
        "final": final,
        "families": families,
        "mlp": families["mlp"],
        "ranking": ranking,
        "reason": report.reason(ranking),
        "five": five,
        "n_near": sum(row["val_accuracy"] >= best["val_accuracy"] - best["val_accuracy_se"] for row in five),
        "steps": report.steps(families),
        "mistakes": mistakes(tensors, about["classes"]),
        "pictures": {name: report.picture(FIGURES / f"{name}.png") for name in ("samples", "near_duplicates")},
    }
    drawn: dict[str, alt.Chart | alt.LayerChart] = {
        "classes": charts.class_balance(prepare["class_counts"]),
        "gradients": charts.gradient_errors(verify["by_layer"], tolerances),
        "val_loss": charts.curves(curves, "val_loss", "validation loss (cross-entropy)"),
        "val_accuracy": charts.curves(curves, "val_accuracy", "validation accuracy"),
        "train_loss": charts.curves(curves, "train_loss", "training loss (cross-entropy)"),
        "ranking": charts.ranking(ranking),
        "confusion": charts.confusion(final["confusion_matrix"], about["classes"]),
        "roc": charts.roc(rows(METRICS / "evaluate/final_roc.csv")),
        "calibration": charts.calibration(rows(METRICS / "evaluate/final_calibration.csv")),
    }
    # Everything is read: what is written now is written whole.
    figures.write(FIGURES / "first_layer.png", units)
    facts["pictures"]["first_layer"] = report.picture(FIGURES / "first_layer.png")
    files.write(METRICS / "report.html", report.render(facts, drawn))


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a CSV file; what reads as a number is one."""
    return [
        {key: number(value) for key, value in row.items()}
        for row in csv.DictReader(io.StringIO(files.read(path).decode()))
    ]


def number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def first_layer() -> Figure:
    """The units of MyNet with the largest weights."""
    card, networks, _ = models.load(Path("data/models/mlp.safetensors"))
    weights = next(next(iter(networks.values())).parameters()).detach()
    largest = weights.norm(dim=1).argsort(descending=True, stable=True)[:N_UNITS]
    return figures.first_layer(weights[largest].view(-1, 3, 32, 32), f"{card.configuration}, the first layer")


def mistakes(tensors: Mapping[str, torch.Tensor], classes: list[str]) -> list[dict[str, Any]]:
    """The final model's wrong answers, the most confident first."""
    confidence, predicted = torch.softmax(tensors["logits"][0].double(), 1).max(1)
    return [
        {
            "true": classes[tensors["labels"][i]],
            "predicted": classes[predicted[i]],
            "confidence": confidence[i].item(),
            "address": address,
        }
        for i, address in zip(tensors["mistakes"], report.thumbnails(tensors["mistaken_images"]), strict=True)
    ]


if __name__ == "__main__":
    errors.run(main)
