"""The images of the chosen classes, or their features: choose, split, save, load."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from cifar2 import files
from cifar2.errors import UserError
from cifar2.params import Features


@dataclass(frozen=True)
class Split:
    """A training, validation or test set.

    Attributes:
        x: images, uint8, N x 3 x 32 x 32, channels red, green, blue; or their features, float32, N x F.
        labels: int64, N, each the position of the class in ``classes``.
        index: int64, N, the index of each image in the official order of CIFAR-10's training or test set.
        classes: names of the classes.
        features: the feature extractor, if ``x`` holds features.
    """

    x: Tensor
    labels: Tensor
    index: Tensor
    classes: tuple[str, ...]
    features: Features | None = None


def split_indices(n: int, val_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide 0 .. n-1 at random into training and validation indices, each in ascending order.

    All classes are drawn together (no stratification), so the class fractions of the two vary by chance.
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    n_train = n - round(n * val_fraction)
    return order[:n_train].sort().values, order[n_train:].sort().values


def select(images: Tensor, labels: Tensor, index: Tensor, names: Sequence[str], classes: Sequence[str]) -> Split:
    """Keep the images at ``index`` whose class is one of ``classes``.

    Args:
        images: all images, uint8, M x 3 x 32 x 32.
        labels: M labels, positions in ``names``.
        index: indices of the images to choose from.
        names: class names of ``labels``.
        classes: classes to keep; their positions are the new labels.
    """
    new_label = torch.full((len(names),), -1)
    for label, name in enumerate(classes):
        new_label[names.index(name)] = label
    relabelled = new_label[labels[index].long()]
    index = index[relabelled >= 0]
    return Split(images[index], relabelled[relabelled >= 0], index, tuple(classes))


def counts(split: Split) -> dict[str, int]:
    """The number of images of each class."""
    return dict(zip(split.classes, split.labels.bincount(minlength=len(split.classes)).tolist(), strict=True))


def check_counts(name: str, split: Split) -> None:
    """Check that the split called ``name`` has images of each class.

    Raises:
        UserError: a class has none.
    """
    for label, n in counts(split).items():
        if n == 0:
            raise UserError(f"params.yaml: data.val_fraction leaves no {label} in {name}; choose another")


def save(path: Path, split: Split) -> None:
    """Write ``split`` as safetensors."""
    about = {"classes": split.classes, "features": split.features.model_dump() if split.features else None}
    files.write_tensors(path, {"images": split.x, "labels": split.labels, "index": split.index}, about)


def load(path: Path) -> Split:
    """Read a file written by :func:`save`.

    Raises:
        UserError: the file is missing or corrupted.
    """
    tensors, about = files.read_tensors(path)
    try:
        features = Features.model_validate(about["features"]) if about["features"] else None
        return Split(tensors["images"], tensors["labels"], tensors["index"], tuple(about["classes"]), features)
    except KeyError as error:
        raise files.corrupted(path, f"it has no {error}") from error
    except ValidationError as error:
        raise files.corrupted(path, error) from error


def join(first: Split, second: Split) -> Split:
    """Both splits as one, in this order."""
    return Split(
        torch.cat([first.x, second.x]),
        torch.cat([first.labels, second.labels]),
        torch.cat([first.index, second.index]),
        first.classes,
        first.features,
    )


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 images, on the scale 0 to 1."""
    # Sums of integers are exact, so the result does not depend on the order of summation.
    values = images.transpose(0, 1).flatten(1).long()
    n = values.shape[1]
    total, squares = values.sum(1).tolist(), (values * values).sum(1).tolist()
    mean = [s / n / 255 for s in total]
    std = [((q - s * s / n) / n) ** 0.5 / 255 for s, q in zip(total, squares, strict=True)]
    return mean, std
