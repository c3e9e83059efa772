"""Evaluate a model on the test set: ``python stages/evaluate.py data/models/NAME.safetensors``.

No other stage trains or selects anything on the test set.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.evaluation.metrics import N_BINS, Bin, calibration, measure, misclassified, roc
from cifar2.evaluation.uncertainty import prediction_interval
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
    parser.add_argument("model", type=Path, help="a file below data/models/ or extended/data/models/")
    model = parser.parse_args().model
    name, root = model.stem, Path("extended" if model.parts[0] == "extended" else "")
    train = params.load().train
    hardware.fix_threads(train.threads)
    hardware.fix_instructions(train.instructions)
    test = splits.load(PREPARED / "test.safetensors")
    card, networks, accuracies = classifier.load(model)
    if not networks:
        raise errors.UserError(f"{model} holds no model: training {card.name} diverged; lower its lr in params.yaml")
    n_seeds, n, classes = len(networks), len(test.labels), test.classes

    x = inputs(card, test, model)
    flip_average = card.configuration.flip_average
    logits = torch.stack([inference.logits(network, x, flip_average) for network in networks.values()])
    pairs = files.read_csv(PREPARED / "near_duplicates.csv", ("other_set",))
    seen = torch.isin(test.index, torch.tensor([int(pair["test_index"]) for pair in pairs]))
    kept = {"all": torch.ones_like(seen)}
    if seen.any() and test.labels[~seen].bincount(minlength=len(classes)).all():  # of each, for the metrics
        kept["without near-duplicates"] = ~seen
    subsets = [{"images": name, **measure(logits[:, k], test.labels[k], classes)} for name, k in kept.items()]
    predicted = logits.argmax(2)
    # Curves and images are of the first seed, which their titles name.
    probabilities = torch.softmax(logits[0].double(), 1)
    wrong = misclassified(probabilities, test.labels)
    # For the report, and for stage export to compare with.
    files.write_tensors(
        root / f"data/evaluated/{name}.safetensors",
        {"logits": logits, "labels": test.labels, "mistakes": wrong, "mistaken_images": test.x[wrong]},
        {"config": card.name, "classes": classes},
    )

    metrics, plots = root / "metrics/evaluate", root / "metrics/figures"
    files.write_csv(
        metrics / f"{name}_predictions.csv",
        ("seed", "actual", "predicted"),
        [
            (seed, classes[t], classes[p])
            for seed, of_seed in zip(networks, predicted, strict=True)
            for t, p in zip(test.labels, of_seed, strict=True)
        ],
    )
    rates = roc(probabilities, test.labels, classes)
    files.write_csv(metrics / f"{name}_roc.csv", ("class", "false_positive_rate", "true_positive_rate"), rates)
    files.write_csv(metrics / f"{name}_calibration.csv", Bin._fields, calibration(probabilities, test.labels, N_BINS))
    seeds, first = (f"{n_seeds} seeds x ", ", first seed") if n_seeds > 1 else ("", "")
    matrix, title = subsets[0]["confusion_matrix"], f"{name} ({card.name}): {seeds}{n:,} test images"
    canvas.write(plots / f"confusion_{name}.png", figures.confusion(matrix, classes, title))
    shown = wrong[:N_IMAGES]
    title = f"{name} ({card.name}): most confident misclassified test images{first}"
    gallery = figures.misclassified(test.x[shown], test.labels[shown], probabilities[shown], classes, title)
    canvas.write(plots / f"mistakes_{name}.png", gallery)
    accuracy = subsets[0]["accuracy"]
    files.write_json(
        metrics / f"{name}.json",
        {
            "config": card.name,
            "test_accuracy": accuracy["mean"],
            "test_accuracy_ci95": accuracy["ci95"],
            "one_new_run_pi95": prediction_interval(accuracy["of_seeds"]) if n_seeds > 1 else None,
            **accuracies,
            "n_seeds": n_seeds,
            "n_parameters": classifier.n_parameters(next(iter(networks.values()))),
            "confusion_matrix": matrix,
            "subsets": subsets,
        },
    )


def inputs(card: classifier.Card, test: splits.Split, model: Path) -> torch.Tensor:
    """The inputs of the network; features of the test images are another stage's."""
    if not card.features:
        return inference.inputs(card, test.x)
    path = Path("data/features/test.safetensors")
    split = splits.load(path)
    if split.features != card.features:
        raise errors.UserError(f"{path} has other features than {model} was trained on; `dvc repro` makes both again")
    return split.x


if __name__ == "__main__":
    errors.run(main)
