"""The pictures of the chosen classes, or what was made of them: split, save, load, normalise."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from cifar2 import files
from cifar2.params import Features


@dataclass(frozen=True)
class Split:
    """Some pictures.

    Attributes:
        images: uint8, N x 3 x 32 x 32, channels red, green, blue; or features made of them, float32, N x F.
        labels: int64, N, each the position of the picture's class in ``classes``.
        index: int64, N, each picture's place in the official order of CIFAR-10's training or test part.
        classes: the names of the classes.
        features: what made the features, if they are any.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    classes: tuple[str, ...]
    features: Features | None = None


def split_indices(n: int, val_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide 0 .. n-1 at random into a training and a validation part, each in ascending order.

    All classes are drawn together, so a class's share of the parts varies as chance has it (no stratification).
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    n_train = n - round(n * val_fraction)
    return order[:n_train].sort().values, order[n_train:].sort().values


def select(images: Tensor, labels: Tensor, index: Tensor, names: Sequence[str], classes: Sequence[str]) -> Split:
    """Keep the pictures out of ``index`` whose class is one of ``classes``.

    Args:
        images: uint8, all pictures, M x 3 x 32 x 32.
        labels: M labels that point into ``names``.
        index: the places to choose from.
        names: what the labels mean.
        classes: the classes to keep; a class's place here is its new label.
    """
    new_label = torch.full((len(names),), -1)
    for label, name in enumerate(classes):
        new_label[names.index(name)] = label
    relabelled = new_label[labels[index].long()]
    index = index[relabelled >= 0]
    return Split(images[index], relabelled[relabelled >= 0], index, tuple(classes))


def save(path: Path, split: Split) -> None:
    """Write ``split`` as safetensors."""
    about = {"classes": split.classes, "features": split.features.model_dump() if split.features else None}
    files.write_tensors(path, {"images": split.images, "labels": split.labels, "index": split.index}, about)


def load(path: Path) -> Split:
    """Read what :func:`save` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    tensors, about = files.read_tensors(path)
    try:
        features = Features.model_validate(about["features"]) if about["features"] else None
        return Split(tensors["images"], tensors["labels"], tensors["index"], tuple(about["classes"]), features)
    except KeyError as error:
        raise files.damaged(path, f"it has no {error}") from error
    except ValidationError as error:
        raise files.damaged(path, error) from error


def join(first: Split, second: Split) -> Split:
    """The pictures of both, in this order."""
    return Split(
        torch.cat([first.images, second.images]),
        torch.cat([first.labels, second.labels]),
        torch.cat([first.index, second.index]),
        first.classes,
        first.features,
    )


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn uint8 pictures (N x 3 x 32 x 32) into float32: scaled to 0..1, then (value - mean) / std per channel."""
    mean_, std_ = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (mean, std))
    return images.float().div_(255).sub_(mean_).div_(std_)


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 pictures, on the scale 0 to 1."""
    # Sums of integers are exact, so the result does not depend on the order of summation.
    values = images.transpose(0, 1).flatten(1).long()
    n = values.shape[1]
    total, squares = values.sum(1).tolist(), (values * values).sum(1).tolist()
    mean = [s / n / 255 for s in total]
    std = [((q - s * s / n) / n) ** 0.5 / 255 for s, q in zip(total, squares, strict=True)]
    return mean, std
