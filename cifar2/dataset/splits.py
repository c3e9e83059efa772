"""The images of the chosen classes, or their features: choose, split, save, load."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from cifar2 import files
from cifar2.errors import UserError
from cifar2.params import Features

# Images at a time, to save memory.
BATCH = 1000


@dataclass(frozen=True)
class Split:
    """A training, validation or test set.

    Attributes:
        x: images, uint8, N x 3 x H x W, channels red, green, blue; or their features, float32, N x F.
        labels: int64, N, each the position of the class in ``classes``.
        index: int64, N, the position of each image in the order of its source: that of CIFAR-10's official training or
            test set, or that of the files' names.
        classes: names of the classes.
        features: the feature extractor, if ``x`` holds features.
    """

    x: Tensor
    labels: Tensor
    index: Tensor
    classes: tuple[str, ...]
    features: Features | None = None


class Sets(NamedTuple):
    """The images of the chosen classes.

    Attributes:
        splits: the training, validation and test sets, as ``train``, ``val`` and ``test``.
        names: the name of each image of each set, which tells it from all others.
        about: what else there is to say about them, for the metrics.
    """

    splits: Mapping[str, Split]
    names: Mapping[str, Sequence[str]]
    about: Mapping[str, Any]


def split_indices(n: int, val_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide 0 .. n-1 at random into training and validation indices, each in ascending order.

    All classes are drawn together (no stratification), so the class fractions of the two vary by chance.
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    n_train = n - round(n * val_fraction)
    return order[:n_train].sort().values, order[n_train:].sort().values


def stratified(labels: Tensor, groups: Tensor, fractions: Sequence[float], seed: int) -> list[Tensor]:
    """Draw a subset for each of ``fractions``, from each class alike; the rest comes last.

    The members of a group stay together.  A group that would make a subset too large goes elsewhere, so that a subset
    may be smaller than asked, and never larger.  Each has room for one example of each class at least.

    Args:
        labels: N labels.
        groups: the group of each of the N examples, which counts for the class of its first member.
        fractions: the fraction of each class in each subset.
        seed: seed of the draw.

    Returns:
        The indices of each subset, in ascending order.
    """
    together = groups.tolist()
    members: dict[int, list[int]] = {}
    for i, name in enumerate(together):
        members.setdefault(name, []).append(i)
    of_class = labels.bincount().tolist()
    room = [[max(1, round(n * fraction)) for n in of_class] for fraction in fractions]
    drawn: list[list[int]] = [[] for _ in (*fractions, "rest")]
    # Examples in random order, not groups: after two groups became one, most others are drawn as before.
    for at in torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist():
        group = members.pop(together[at], None)
        if group is None:
            continue
        label = int(labels[group[0]])
        subset = next((i for i, left in enumerate(room) if len(group) <= left[label]), len(room))
        drawn[subset] += group
        if subset < len(room):
            room[subset][label] -= len(group)
    return [torch.tensor(sorted(indices), dtype=torch.int64) for indices in drawn]


def select(images: Tensor, labels: Tensor, index: Tensor, names: Sequence[str], classes: Sequence[str]) -> Split:
    """Keep the images at ``index`` whose class is one of ``classes``.

    Args:
        images: all images, uint8, M x 3 x H x W.
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


def check_counts(sets: Mapping[str, Split], advice: str) -> None:
    """Check that each set has images of each class; ``advice`` says what to do if not.

    Raises:
        UserError: a class has none.
    """
    for name, split in sets.items():
        for label, n in counts(split).items():
            if n == 0:
                raise UserError(f"no image of {label} is in {name}; {advice}")


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
    n = images[:, 0].numel()
    total = squares = torch.zeros(3, dtype=torch.int64)
    for batch in torch.split(images, BATCH):
        values = batch.transpose(0, 1).flatten(1).long()
        total, squares = total + values.sum(1), squares + (values * values).sum(1)
    mean = [s / n / 255 for s in total.tolist()]
    std = [((q - s * s / n) / n) ** 0.5 / 255 for s, q in zip(total.tolist(), squares.tolist(), strict=True)]
    return mean, std
