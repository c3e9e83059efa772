"""Measure the best of a family, or the final model, on the test split: ``python stages/evaluate.py NAME``.

No other stage learns or selects anything by that split.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.evaluation import metrics as evaluation
from cifar2.networks import classifier
from cifar2.report import figures
from cifar2.training import hardware

# isort: split
import torch

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
    test = splits.load(PREPARED / "test.safetensors")
    pairs = files.read_csv(PREPARED / "near_duplicates.csv", ())
    unseen = ~torch.isin(test.index, torch.tensor([int(pair["test_index"]) for pair in pairs]))
    card, networks, accuracies = classifier.load(root / f"data/models/{name}.safetensors")

    x = classifier.inputs(card, test.images)
    logits = torch.stack([classifier.logits(network, x, card.flip_average) for network in networks.values()])
    correct = logits.argmax(2) == test.labels
    # What a mean over models cannot show is shown of the first: the final model, or the first of train.seeds.
    probabilities = torch.softmax(logits[0].double(), 1)
    predicted = probabilities.argmax(1)

    def measure(images: str, which: torch.Tensor) -> dict[str, Any]:
        scores = evaluation.classification_metrics(probabilities[which], test.labels[which], test.classes)
        over_seeds = evaluation.accuracy_over_seeds(correct[:, which])
        return {"images": images, "n": int(which.sum()), **scores} | {f"seeds_{k}": v for k, v in over_seeds.items()}

    subsets = [measure("all", torch.ones_like(unseen)), measure("without near-duplicates", unseen)]
    metrics = subsets[0]
    mistakes = evaluation.mistakes(probabilities, test.labels)
    worst = mistakes[:N_MISTAKES]
    captions = [
        f"{test.classes[test.labels[i]]}, taken for\n{test.classes[predicted[i]]} ({probabilities[i].max():.2%})"
        for i in worst
    ]
    # For the report, and for the export to compare its answers with.
    files.write_tensors(
        root / f"data/evaluated/{name}.safetensors",
        {
            "logits": logits,
            "labels": test.labels,
            "mistakes": mistakes,
            "mistaken_images": test.images[mistakes],
        },
        {"config": card.configuration, "classes": test.classes},
    )

    folder, pictures = root / "metrics/evaluate", root / "metrics/figures"
    files.write_csv(
        folder / f"{name}_predictions.csv",
        ("actual", "predicted"),
        [(test.classes[t], test.classes[p]) for t, p in zip(test.labels, predicted, strict=True)],
    )
    files.write_csv(
        folder / f"{name}_roc.csv",
        ("class", "false_positive_rate", "true_positive_rate"),
        evaluation.roc(probabilities, test.labels, test.classes),
    )
    files.write_csv(
        folder / f"{name}_calibration.csv", evaluation.Bin._fields, evaluation.calibration(probabilities, test.labels)
    )
    figures.write(
        pictures / f"confusion_{name}.png",
        figures.confusion(metrics["confusion_matrix"], test.classes, f"{name}: {len(test.labels):,} test images"),
    )
    figures.write(
        pictures / f"mistakes_{name}.png",
        figures.mistakes(test.images[worst], captions, f"{name}: the most confident mistakes on the test images"),
    )
    files.write_json(
        folder / f"{name}.json",
        {
            "config": card.configuration,
            "test_accuracy": metrics["accuracy"],
            "test_accuracy_ci95": metrics["accuracy_ci95"],
            **accuracies,
            "n_seeds": len(networks),
            "n_parameters": classifier.n_parameters(next(iter(networks.values()))),
            "confusion_matrix": metrics["confusion_matrix"],
            "subsets": subsets,
        },
    )


if __name__ == "__main__":
    errors.run(main)
