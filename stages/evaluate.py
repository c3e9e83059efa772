"""Measure the best configuration of a family, or the final model, on the test set: ``python stages/evaluate.py NAME``.

No other stage trains or selects anything on the test set.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.evaluation.metrics import Bin, calibration, metrics_of_seeds, misclassified, roc
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
    pairs = files.read_csv(PREPARED / "near_duplicates.csv", ())
    seen = torch.isin(test.index, torch.tensor([int(pair["test_index"]) for pair in pairs]))
    subsets = [
        {"images": images, "n": int(kept.sum()), **metrics_of_seeds(logits[:, kept], test.labels[kept], test.classes)}
        for images, kept in (("all", torch.ones_like(seen)), ("without near-duplicates", ~seen))
    ]
    # Figures and tables that cannot show a mean over models show the first: the final model, or the first seed.
    probabilities = torch.softmax(logits[0].double(), 1)
    confidence, predicted = probabilities.max(1)
    wrong = misclassified(probabilities, test.labels)
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
    captions = [
        f"{test.classes[test.labels[i]]}, predicted\n{test.classes[predicted[i]]} ({confidence[i]:.2%})"
        for i in wrong[:N_IMAGES]
    ]
    title = f"{name}: most confident misclassified test images"
    canvas.write(plots / f"mistakes_{name}.png", figures.misclassified(test.x[wrong[:N_IMAGES]], captions, title))
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


if __name__ == "__main__":
    errors.run(main)
