"""Measure the final model on the test split, which no other stage reads: ``python stages/evaluate.py FAMILY``."""

import argparse
from pathlib import Path
from statistics import fmean, stdev

from cifar2 import dataset, errors, evaluation, figures, files, models

TEST = Path("data/prepared/test.safetensors")
N_MISTAKES = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=["mlp"], help="the group of configurations whose best is evaluated")
    family = parser.parse_args().family
    test = dataset.load(TEST)
    card, final = models.load(Path("data/models/final.safetensors"))
    _, seeds = models.load(Path(f"data/models/selected/{family}.safetensors"))
    refit = files.read_json(Path("metrics/refit.json"), ("val_accuracy", "train_accuracy"))

    x = dataset.normalise(test.images, card.mean, card.std)
    probabilities = models.probabilities(final["final"], x)
    predicted = probabilities.argmax(1)
    over_seeds = [
        (models.probabilities(network, x).argmax(1) == test.labels).double().mean().item() for network in seeds.values()
    ]
    metrics = evaluation.classification_metrics(probabilities, test.labels, test.classes)
    wrong = evaluation.most_confident_mistakes(probabilities, test.labels, N_MISTAKES)
    captions = [
        f"{test.classes[test.labels[i]]}, taken for\n{test.classes[predicted[i]]} ({probabilities[i].max():.2%})"
        for i in wrong
    ]

    folder = Path("metrics/evaluate")
    files.write_csv(
        folder / f"{family}_predictions.csv",
        ("actual", "predicted"),
        [(test.classes[t], test.classes[p]) for t, p in zip(test.labels, predicted, strict=True)],
    )
    figures.write(
        Path(f"metrics/figures/confusion_{family}.png"),
        figures.confusion(metrics["confusion_matrix"], test.classes, f"{len(test.labels):,} test images"),
    )
    figures.write(
        Path(f"metrics/figures/mistakes_{family}.png"),
        figures.mistakes(test.images[wrong], captions, "The most confident mistakes on the test images"),
    )
    files.write_json(
        folder / f"{family}.json",
        {
            "config": card.configuration,
            "n_test": len(test.labels),
            **metrics,
            "test_accuracy_seeds_mean": fmean(over_seeds),
            "test_accuracy_seeds_std": stdev(over_seeds) if len(over_seeds) > 1 else None,
            "n_seeds": len(over_seeds),
            "val_accuracy": refit["val_accuracy"],
            "train_accuracy": refit["train_accuracy"],
        },
    )


if __name__ == "__main__":
    errors.run(main)
