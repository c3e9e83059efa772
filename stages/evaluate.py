"""Measure the best of a family, or the final model, on the test split: ``python stages/evaluate.py NAME``.

No other stage reads that split.
"""

import argparse
import csv
import io
from pathlib import Path

import torch

from cifar2 import dataset, errors, evaluation, figures, files, hardware, models, params

PREPARED = Path("data/prepared")
N_MISTAKES = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a family of configurations, or final")
    parser.add_argument("--beyond", action="store_true", help="as select_model.py --beyond picked it")
    arguments = parser.parse_args()
    name, root = arguments.name, Path("beyond" if arguments.beyond else "")
    everything = params.load()
    hardware.fix_convolutions(everything.train.threads)
    test = dataset.load(PREPARED / "test.safetensors")
    pairs = csv.DictReader(io.StringIO(files.read(PREPARED / "near_duplicates.csv").decode()))
    unseen = ~torch.isin(test.index, torch.tensor([int(pair["test_index"]) for pair in pairs]))
    card, networks, accuracies = models.load(root / f"data/models/{name}.safetensors")

    x = models.inputs(card, test.images)
    answers = [models.probabilities(network, x, card.flip_average) for network in networks.values()]
    correct = torch.stack([answer.argmax(1) == test.labels for answer in answers])
    # What a mean over models cannot show is shown of the first: the final model, or the first of train.seeds.
    probabilities, first = answers[0], correct[0]
    predicted = probabilities.argmax(1)
    metrics = evaluation.classification_metrics(probabilities, test.labels, test.classes)
    wrong = evaluation.most_confident_mistakes(probabilities, test.labels, N_MISTAKES)
    captions = [
        f"{test.classes[test.labels[i]]}, taken for\n{test.classes[predicted[i]]} ({probabilities[i].max():.2%})"
        for i in wrong
    ]
    over_seeds = evaluation.accuracy_over_seeds(correct)
    n_unseen = int(unseen.sum())

    folder, pictures = root / "metrics/evaluate", root / "metrics/figures"
    files.write_csv(
        folder / f"{name}_predictions.csv",
        ("actual", "predicted"),
        [(test.classes[t], test.classes[p]) for t, p in zip(test.labels, predicted, strict=True)],
    )
    figures.write(
        pictures / f"confusion_{name}.png",
        figures.confusion(metrics["confusion_matrix"], test.classes, f"{name}: {len(test.labels):,} test images"),
    )
    figures.write(
        pictures / f"mistakes_{name}.png",
        figures.mistakes(test.images[wrong], captions, f"{name}: the most confident mistakes on the test images"),
    )
    files.write_json(
        folder / f"{name}.json",
        {
            "config": card.configuration,
            "n_test": len(test.labels),
            **metrics,
            "test_accuracy_seeds_mean": over_seeds["mean"],
            "test_accuracy_seeds_std": over_seeds["std"],
            "test_accuracy_seeds_ci95": over_seeds["ci95"],
            "n_seeds": len(networks),
            "n_near_duplicates": len(test.labels) - n_unseen,
            "test_accuracy_without_near_duplicates": first[unseen].double().mean().item(),
            "test_accuracy_without_near_duplicates_ci95": evaluation.accuracy_interval(
                int(first[unseen].sum()), n_unseen
            ),
            "test_accuracy_seeds_mean_without_near_duplicates": correct[:, unseen].double().mean().item(),
            **accuracies,
            "n_parameters": models.n_parameters(next(iter(networks.values()))),
        },
    )


if __name__ == "__main__":
    errors.run(main)
