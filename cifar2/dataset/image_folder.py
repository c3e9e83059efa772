"""Your own images: a folder per class, in the layout of torchvision's ``ImageFolder``.

``data/images/CLASS/*.png``, or ``data/images/train/CLASS/*.png`` beside ``val`` and ``test``.  A set that has no folder
is drawn from the training images.
"""

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cifar2.dataset import image_file, near_duplicates, splits
from cifar2.errors import UserError, did_you_mean
from cifar2.params import Data
from cifar2.progress_bar import steps

SETS = ("train", "val", "test")
# To start further processes takes seconds, as long as to read so many images.
FEW = 1000
# Pairs of names in a message.
SHOWN = 3


class File(NamedTuple):
    """An image file and its class, as a position in ``data.classes``."""

    path: Path
    label: int


def sets(data: Data) -> splits.Sets:
    """The images of the chosen classes, resized to ``data.image_size``.

    Raises:
        UserError: a class has no folder or too few images, an image cannot be read, or is in two classes, or a set has
            no image of a class.
    """
    folder, fractions = Path(data.folder), {"val": data.val_fraction, "test": data.test_fraction}
    files, images, unreadable = find(folder, data.classes), {}, []
    for name, of_set in files.items():
        images[name], files[name], messages = read(of_set, data.image_size)
        unreadable += messages
    if unreadable:
        print("\n".join(unreadable), file=sys.stderr)
        if not data.skip_unreadable:
            raise UserError(
                f"unreadable images in {folder}, listed above: {len(unreadable)}; "
                "remove them, or let data.skip_unreadable in params.yaml leave them out"
            )
    _check_digests(files, images)

    index = {name: torch.arange(len(of_set)) for name, of_set in files.items()}
    given = {
        name: splits.Split(
            images[name],
            torch.tensor([file.label for file in of_set], dtype=torch.int64),
            index[name],
            tuple(data.classes),
        )
        for name, of_set in files.items()
    }
    splits.check_counts(given, f"add some to {folder}")
    if drawn := [name for name in fractions if name not in files]:
        draw = _draw_apart if data.near_duplicates else _draw
        parts = draw(images["train"], given["train"].labels, [fractions[name] for name in drawn], data.split_seed)
        index |= dict(zip([*drawn, "train"], parts, strict=True))
    source = {name: name if name in files else "train" for name in SETS}
    chosen = {
        name: replace(given[source[name]], x=given[source[name]].x[i], labels=given[source[name]].labels[i], index=i)
        for name, i in ((name, index[name]) for name in SETS)
    }
    alike = " or, if all its images are alike, set data.near_duplicates in params.yaml to false"
    splits.check_counts(chosen, f"add some to {folder}{alike if drawn and data.near_duplicates else ''}")
    return splits.Sets(
        chosen,
        {
            name: [files[source[name]][i].path.relative_to(folder).as_posix() for i in index[name].tolist()]
            for name in SETS
        },
        {"unreadable": unreadable},
    )


def find(folder: Path, classes: Sequence[str]) -> dict[str, list[File]]:
    """The image files of each set that has a folder, in the order of their names; all as ``train`` if none has.

    Raises:
        UserError: a class has no folder, or too few images.
    """
    given = any((folder / "train" / name).is_dir() for name in classes)
    roots = {name: folder / name for name in SETS if (folder / name).is_dir()} if given else {"train": folder}
    found = {
        name: [File(path, label) for label, of_class in enumerate(classes) for path in _in_class(root, of_class)]
        for name, root in roots.items()
    }
    # One for each set that is drawn, and one to train on.
    least = 1 + len(SETS) - len(roots)
    for label, name in enumerate(classes):
        n = sum(file.label == label for file in found["train"])
        if n < least:
            raise UserError(f"{roots['train'] / name} has {n} of the {least} images that it needs, one for each set")
    return found


def read(files: Sequence[File], size: int) -> tuple[Tensor, list[File], list[str]]:
    """Read images on all cores.

    Args:
        files: the image files.
        size: height and width of the results, in pixels.

    Returns:
        The images, uint8, N x 3 x size x size; the files that were read; a message for each of the others.
    """
    images = np.empty((len(files), 3, size, size), np.uint8)
    jobs = joblib.cpu_count() if len(files) > FEW else 1
    pixels = joblib.Parallel(jobs, return_as="generator")(joblib.delayed(_pixels)(file.path, size) for file in files)
    readable: list[File] = []
    unreadable: list[str] = []
    for file, found in zip(files, steps(pixels, len(files), "images read"), strict=True):
        if isinstance(found, str):
            unreadable.append(found)
        else:
            images[len(readable)] = found
            readable.append(file)
    return torch.from_numpy(images[: len(readable)]), readable, unreadable


def _draw(images: Tensor, labels: Tensor, fractions: Sequence[float], seed: int) -> list[Tensor]:
    """A subset for each of ``fractions``, and the rest (see ``splits.stratified``), with equal images in one."""
    return splits.stratified(labels, _equal(images), fractions, seed)


def _draw_apart(images: Tensor, labels: Tensor, fractions: Sequence[float], seed: int) -> list[Tensor]:
    """The same, with no near-duplicate of an image in another subset.

    The search compares an image with the most similar ones only, and among fewer images it finds others.
    """
    groups = near_duplicates.join(near_duplicates.groups(images), torch.arange(len(images)), _equal(images))
    while True:
        *parts, rest = splits.stratified(labels, groups, fractions, seed)
        pairs = [(torch.arange(0), torch.arange(0))]
        # As stage near_duplicates searches: in training for validation images, and in both for test images.
        for a, b in combinations([part for part in (rest, *parts) if len(part)], 2):
            found = near_duplicates.find(images[a], images[b])
            pairs.append((a[found.train], b[found.test]))
        first, second = (torch.cat(ends) for ends in zip(*pairs, strict=True))
        if not len(first):
            return [*parts, rest]
        groups = near_duplicates.join(groups, first, second)


def _equal(images: Tensor) -> Tensor:
    """For each image the first one that equals it, int64, N."""
    first: dict[bytes, int] = {}
    return torch.tensor([first.setdefault(_digest(image), i) for i, image in enumerate(images.numpy())])


def _digest(image: npt.NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()


def _pixels(path: Path, size: int) -> npt.NDArray[np.uint8] | str:
    """The image, or why it cannot be read."""
    try:
        return image_file.read(path, size).numpy()
    except UserError as error:
        return str(error)


def _in_class(root: Path, name: str) -> list[Path]:
    """The image files of a class, also those in folders below its own, as for torchvision.

    Raises:
        UserError: the class has no folder, or one of these folders is a link.
    """
    folder = root / name
    if not folder.is_dir():
        known = [path.name for path in sorted(root.glob("*")) if path.is_dir() and path.name[0] != "."]
        raise UserError(f"there is no folder {folder}{did_you_mean(name, known, 'there are' if known else '')}")
    paths: list[Path] = []
    for place, below, files in os.walk(folder):
        below[:] = [name for name in below if name[0] != "."]
        for link in (path for path in (root, Path(place), *(Path(place, name) for name in below)) if path.is_symlink()):
            raise UserError(f"{link} is a link, and DVC sees no change behind it; move the folder here")
        paths += (Path(place, name) for name in files if name[0] != ".")
    return sorted(path for path in paths if path.suffix.lower() in image_file.SUFFIXES)


def _check_digests(files: Mapping[str, Sequence[File]], images: Mapping[str, Tensor]) -> None:
    """Check that no image is in two classes.

    Raises:
        UserError: one is.
    """
    first: dict[bytes, File] = {}
    pairs = []
    for name, of_set in files.items():
        for file, image in zip(of_set, images[name].numpy(), strict=True):
            other = first.setdefault(_digest(image), file)
            if other.label != file.label:
                pairs.append(f"{other.path} and {file.path}")
    if pairs:
        more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        raise UserError(f"the same image is in two classes: {', '.join(pairs[:SHOWN])}{more}; keep one of each")
