"""Files that are whole or absent, and whose bytes depend on their content alone."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cifar2.errors import UserError, describe


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
    except (FileExistsError, NotADirectoryError) as error:
        obstacle = next(folder for folder in path.parents if folder.exists())
        raise UserError(f"{path} cannot be written: {obstacle} is not a folder") from error
    except OSError as error:
        raise UserError(f"{path} cannot be written: {describe(error)}") from error


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
        raise UserError(f"{path} cannot be read: {describe(error)}") from error


def damaged(path: Path, reason: object) -> UserError:
    """The error for a file that is there and is not what it should be."""
    told = " ".join(str(reason).split())
    # DVC takes a write-protected file in its cache for whole, and looks into any other.
    return UserError(
        f"{path} is damaged ({told}); delete it, then `dvc repro` or `dvc pull` brings it back; "
        "if damaged again, let DVC check its cache first: `chmod -R u+w .dvc/cache`"
    )


class _Record(dict[str, Any]):
    """What a file says, by name; a name that it lacks is the file's damage and no bug."""

    def __init__(self, path: Path, items: Mapping[str, Any]) -> None:
        super().__init__(items)
        self.path = path

    def __missing__(self, name: str) -> NoReturn:
        raise damaged(self.path, f"it has no {name}")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write ``document`` as JSON, keys in their order; a NaN or an infinity is a ``ValueError``, not a metric."""
    write(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    """Read a JSON object written by an earlier stage, which must have ``keys``.

    Raises:
        UserError: it is missing, not a JSON object, or lacks a key; likewise later, when a key is looked up anywhere in
            it that is not there.
    """
    try:
        document = json.loads(read(path), object_hook=lambda items: _Record(path, items))
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


def read_csv(path: Path, text: Collection[str]) -> list[dict[str, Any]]:
    """Read the lines of a CSV file written by an earlier stage, by the names of its columns.

    Args:
        path: of the file.
        text: the columns that are taken as they are; all others are numbers, True or False, and None where empty.

    Raises:
        UserError: it is missing or damaged; likewise later, when a column is looked up that is not there.
    """
    try:
        content = read(path).decode()
        if not content.endswith("\n"):
            raise ValueError("it ends within a line")
        columns, *lines = csv.reader(io.StringIO(content), strict=True)
        rows = [dict(zip(columns, line, strict=True)) for line in lines]
        return [_Record(path, {c: value if c in text else _number(value) for c, value in row.items()}) for row in rows]
    except (ValueError, csv.Error) as error:
        raise damaged(path, error) from error


def _number(field: str) -> float | None:
    constants = {"": None, "True": True, "False": False}
    return constants[field] if field in constants else float(field)


def join_csv(paths: Sequence[Path], text: Collection[str]) -> bytes:
    """The lines of several CSV files with the same columns, as one file's content.

    Raises:
        UserError: a file is missing or damaged (see :func:`read_csv`).
    """
    header, rows = b"", b""
    for path in paths:
        read_csv(path, text)  # so that damage is not handed on
        columns, _, lines = read(path).partition(b"\n")
        if columns != (header or columns):
            raise damaged(path, f"its columns are not those of {paths[0]}")
        header, rows = columns, rows + lines
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
