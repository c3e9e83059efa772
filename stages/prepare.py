"""Get CIFAR-10, keep the chosen classes, split them into train, val and test, and show what they look like."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import cifar10, near_duplicates
from cifar2.dataset import splits as dataset
from cifar2.report import figures

# isort: split
import torch

PREPARED = Path("data/prepared")
METRICS = Path("metrics/prepare.json")
FIGURES = Path("metrics/figures")
# Pairs in the figure of near-duplicates.
N_PAIRS = 72


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    settings = params.load()
    data = cifar10.load(settings.data.sources, Path(settings.data.folder))
    train_index, val_index = dataset.split_indices(
        len(data.train_labels), settings.data.val_fraction, settings.data.split_seed
    )
    parts = {
        "train": (data.train_images, data.train_labels, train_index),
        "val": (data.train_images, data.train_labels, val_index),
        "test": (data.test_images, data.test_labels, torch.arange(len(data.test_labels))),
    }
    splits = {
        name: dataset.select(
            torch.from_numpy(images), torch.from_numpy(labels), index, cifar10.CLASSES, settings.data.classes
        )
        for name, (images, labels, index) in parts.items()
    }
    train = splits["train"]
    counts = {
        name: dict(zip(split.classes, split.labels.bincount(minlength=len(split.classes)).tolist(), strict=True))
        for name, split in splits.items()
    }
    for name, by_class in counts.items():
        for label, count in by_class.items():
            if count == 0:
                raise errors.UserError(f"params.yaml: data.val_fraction leaves no {label} in {name}; choose another")
    mean, std = dataset.channel_statistics(train.images)
    # A part of the test pictures is not new: evaluate tells what the others alone give.
    test, known = splits["test"], dataset.join(train, splits["val"])
    pairs = near_duplicates.find(known.images, test.images)
    title = f"{len(pairs.test)} of {len(test.labels):,} test images (left), with a near-duplicate in the training part"
    doubtful = near_duplicates.Pairs(*(column[-N_PAIRS:] for column in pairs))
    if len(pairs.test) > N_PAIRS:
        title += f"; the {N_PAIRS} least similar"
    normalised = dataset.normalise(train.images, settings.normalise.mean, settings.normalise.std)

    for name, split in splits.items():
        dataset.save(PREPARED / f"{name}.safetensors", split)
    files.write_csv(
        PREPARED / "near_duplicates.csv",
        ("test_index", "train_index", "mirrored", "similarity"),
        [
            (test.index[i].item(), known.index[j].item(), mirrored.item(), f"{similarity:.4f}")
            for i, j, mirrored, similarity in zip(*pairs, strict=True)
        ],
    )
    figures.write(
        FIGURES / "near_duplicates.png",
        figures.pairs(
            test.images[doubtful.test],
            known.images[doubtful.train],
            [test.classes[label] for label in test.labels[doubtful.test]],
            title,
        ),
    )
    figures.write(FIGURES / "samples.png", figures.samples(train.images, normalised, train.labels, train.classes))
    figures.write(FIGURES / "class_distribution.png", figures.class_distribution(counts))
    files.write_json(
        METRICS,
        {
            **{f"n_{name}": len(split.labels) for name, split in splits.items()},
            "class_counts": counts,
            "n_near_duplicates": len(pairs.test),
            "channel_mean": mean,
            "channel_std": std,
        },
    )


if __name__ == "__main__":
    errors.run(main)
