"""Files that are whole or absent, and whose bytes depend on their content alone."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cifar2.errors import UserError


def write(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that no reader ever sees half of it: a neighbour first, then a rename.

    Raises:
        UserError: the disk is full or the folder cannot be written; what was there before is still there.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:  # an interruption too
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def read(path: Path) -> bytes:
    """Read a file that an earlier stage wrote.

    Raises:
        UserError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro` makes it, `dvc pull` fetches it") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def damaged(path: Path, reason: object) -> UserError:
    """The error for a file that is there and is not what it should be."""
    told = " ".join(str(reason).split())
    return UserError(f"{path} is damaged ({told}); delete it, then `dvc checkout` or `dvc repro` brings it back")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write ``document`` as JSON, keys in their order; a NaN or an infinity is a ``ValueError``, not a metric."""
    write(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    """Read a JSON object written by an earlier stage, which must have ``keys``.

    Raises:
        UserError: it is missing, not a JSON object, or lacks a key.
    """
    try:
        document = json.loads(read(path))
    except ValueError as error:
        raise damaged(path, error) from error
    if not isinstance(document, dict):
        raise damaged(path, "not a JSON object")
    for key in keys:
        if key not in document:
            raise damaged(path, f"it has no {key}")
    return document


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write ``rows`` as CSV under a line of ``columns``; None is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write(path, text.getvalue().encode())


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the lines of a CSV file by the names of its columns.

    Raises:
        UserError: it is missing or cannot be read.
    """
    return list(csv.DictReader(io.StringIO(read(path).decode())))


def join_csv(paths: Sequence[Path]) -> bytes:
    """The lines of several CSV files with the same columns, as one file's content.

    Raises:
        UserError: a file is missing.
    """
    header, rows = b"", b""
    for path in paths:
        header, _, lines = read(path).partition(b"\n")
        rows += lines
    return header + b"\n" + rows


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write ``tensors`` as safetensors, with ``about`` as a JSON object and a digest of both in the header."""
    # Cloned, since safetensors refuses tensors that are pieces of one memory, as the parameters of a network may be.
    whole = {name: tensor.cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    # One metadata key only: safetensors keeps several in a hash map, whose order changes from run to run.
    metadata = {"about": json.dumps({"about": about, "sha256": _digest(whole, about)}, allow_nan=False)}
    write(path, safetensors.torch.save(whole, metadata))


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(about).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_tensors` wrote: the tensors and ``about``.

    Raises:
        UserError: the file is missing or damaged.
    """
    content = read(path)
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        said = json.loads(header["__metadata__"]["about"])
        about, wanted = said["about"], said["sha256"]
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    if _digest(tensors, about) != wanted:
        raise damaged(path, "its digest is another")
    return tensors, about
