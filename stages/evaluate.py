"""Measure the best configuration of a family, or the final model, on the test set: ``python stages/evaluate.py NAME``.

No other stage trains or selects anything on the test set.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.evaluation.metrics import (
    Bin,
    accuracy_over_seeds,
    calibration,
    classification_metrics,
    misclassified,
    roc,
)
from cifar2.figures import canvas
from cifar2.figures import evaluate as figures
from cifar2.networks import classifier, inference
from cifar2.training import hardware

# isort: split
import torch

PREPARED = Path("data/prepared")
# Misclassified images in the figure.
N_IMAGES = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a family of configurations, or final")
    parser.add_argument("--extended", action="store_true", help="the best one under `extended`")
    arguments = parser.parse_args()
    name, root = arguments.name, Path("extended" if arguments.extended else "")
    hardware.fix_convolutions(params.load().train.threads)
    test = splits.load(PREPARED / "test.safetensors")
    card, networks, accuracies = classifier.load(root / f"data/models/{name}.safetensors")

    x = inference.inputs(card, test.x)
    flip_average = card.configuration.flip_average
    logits = torch.stack([inference.logits(network, x, flip_average) for network in networks.values()])
    subsets = [
        {"images": images, "n": int(chosen.sum()), **measure(logits[:, chosen], test.labels[chosen], test.classes)}
        for images, chosen in (("all", torch.ones_like(test.labels).bool()), ("without near-duplicates", unseen(test)))
    ]
    # Figures and tables that cannot show a mean over models show the first: the final model, or the first seed.
    probabilities = torch.softmax(logits[0].double(), 1)
    predicted, wrong = probabilities.argmax(1), misclassified(probabilities, test.labels)
    # For the report, and for stage export to compare with.
    files.write_tensors(
        root / f"data/evaluated/{name}.safetensors",
        {"logits": logits, "labels": test.labels, "mistakes": wrong, "mistaken_images": test.x[wrong]},
        {"config": card.name, "classes": test.classes},
    )

    metrics, plots = root / "metrics/evaluate", root / "metrics/figures"
    files.write_csv(
        metrics / f"{name}_predictions.csv",
        ("actual", "predicted"),
        [(test.classes[t], test.classes[p]) for t, p in zip(test.labels, predicted, strict=True)],
    )
    rates = roc(probabilities, test.labels, test.classes)
    files.write_csv(metrics / f"{name}_roc.csv", ("class", "false_positive_rate", "true_positive_rate"), rates)
    files.write_csv(metrics / f"{name}_calibration.csv", Bin._fields, calibration(probabilities, test.labels))
    matrix, title = subsets[0]["confusion_matrix"], f"{name}: {len(test.labels):,} test images"
    canvas.write(plots / f"confusion_{name}.png", figures.confusion(matrix, test.classes, title))
    canvas.write(plots / f"mistakes_{name}.png", gallery(name, test, probabilities, wrong[:N_IMAGES]))
    files.write_json(
        metrics / f"{name}.json",
        {
            "config": card.name,
            "test_accuracy": subsets[0]["accuracy"],
            "test_accuracy_ci95": subsets[0]["accuracy_ci95"],
            **accuracies,
            "n_seeds": len(networks),
            "n_parameters": classifier.n_parameters(next(iter(networks.values()))),
            "confusion_matrix": matrix,
            "subsets": subsets,
        },
    )


def unseen(test: splits.Split) -> torch.Tensor:
    """Whether each test image has no near-duplicate among the training and validation images, bool, N."""
    pairs = files.read_csv(PREPARED / "near_duplicates.csv", ())
    return ~torch.isin(test.index, torch.tensor([int(pair["test_index"]) for pair in pairs]))


def measure(logits: torch.Tensor, labels: torch.Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    """The metrics of the first model, and the accuracy over all of them; ``logits``: models x N x classes."""
    over_seeds = accuracy_over_seeds(logits.argmax(2) == labels)
    scores = classification_metrics(torch.softmax(logits[0].double(), 1), labels, classes)
    return scores | {f"seeds_{key}": value for key, value in over_seeds.items()}


def gallery(name: str, test: splits.Split, probabilities: torch.Tensor, chosen: torch.Tensor) -> canvas.Figure:
    """The chosen test images with their true and predicted class."""
    captions = [
        f"{test.classes[test.labels[i]]}, predicted\n{test.classes[probabilities[i].argmax()]} "
        f"({probabilities[i].max():.2%})"
        for i in chosen
    ]
    return figures.misclassified(test.x[chosen], captions, f"{name}: most confident misclassified test images")


if __name__ == "__main__":
    errors.run(main)
