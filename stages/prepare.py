"""Get CIFAR-10, keep the chosen classes, and split them into training, validation and test sets."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import cifar10, splits
from cifar2.dataset.examples import normalise
from cifar2.figures import canvas
from cifar2.figures import prepare as figures

# isort: split
import torch

PREPARED, FIGURES = Path("data/prepared"), Path("metrics/figures")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    parameters = params.load()
    cifar = cifar10.load(parameters.data.sources, Path(parameters.data.folder))
    all_classes = divide(cifar, parameters.data, cifar10.CLASSES)
    sets = divide(cifar, parameters.data, parameters.data.classes)
    train = sets["train"]
    for name, split in sets.items():
        splits.check_counts(name, split)
    counts = {name: splits.counts(split) for name, split in sets.items()}
    mean, std = splits.channel_statistics(train.x)
    normalised = normalise(train.x, parameters.normalise.mean, parameters.normalise.std)

    for name, split in sets.items():
        splits.save(PREPARED / f"{name}.safetensors", split)
    canvas.write(FIGURES / "samples.png", figures.samples(train.x, normalised, train.labels, train.classes))
    canvas.write(FIGURES / "class_distribution.png", figures.class_distribution(counts))
    files.write_json(
        Path("metrics/prepare.json"),
        {
            **{f"n_{name}": len(split.labels) for name, split in sets.items()},
            "class_counts": counts,
            "all_classes": {name: splits.counts(split) for name, split in all_classes.items()},
            "channel_mean": mean,
            "channel_std": std,
        },
    )


def divide(cifar: cifar10.Cifar10, data: params.Data, classes: Sequence[str]) -> dict[str, splits.Split]:
    """The images of some classes, as training, validation and test sets."""
    train_index, val_index = splits.split_indices(len(cifar.train_labels), data.val_fraction, data.split_seed)
    sources = {
        "train": (cifar.train_images, cifar.train_labels, train_index),
        "val": (cifar.train_images, cifar.train_labels, val_index),
        "test": (cifar.test_images, cifar.test_labels, torch.arange(len(cifar.test_labels))),
    }
    return {
        name: splits.select(torch.from_numpy(images), torch.from_numpy(labels), index, cifar10.CLASSES, classes)
        for name, (images, labels, index) in sources.items()
    }


if __name__ == "__main__":
    errors.run(main)
