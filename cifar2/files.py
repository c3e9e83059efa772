"""Atomic, byte-stable files: complete or absent, and with bytes that depend only on their content."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cifar2.errors import UserError, describe

if TYPE_CHECKING:  # torch takes seconds to import, and some programs read no tensors
    from torch import Tensor


def write(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically: to a temporary file beside it, then rename that.

    Raises:
        UserError: the disk is full or the folder is not writable; an existing file is unchanged.
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
        except BaseException:  # KeyboardInterrupt included
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


def corrupted(path: Path, reason: object) -> UserError:
    """The error for an existing file with invalid content."""
    # DVC trusts write-protected files in its cache; it only checks the hashes of writable ones.
    return UserError(
        f"{path} is corrupted ({' '.join(str(reason).split())}); delete it, then `dvc repro` or `dvc pull` restores it"
        "; if corrupted again, let DVC check its cache first: `chmod -R u+w .dvc/cache`"
    )


class _Record(dict[str, Any]):
    """A mapping read from a file. Looking up a missing key is reported as a corrupted file."""

    def __init__(self, path: Path, items: Mapping[str, Any]) -> None:
        super().__init__(items)
        self.path = path

    def __missing__(self, name: str) -> NoReturn:
        raise corrupted(self.path, f"it has no {name}")


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write ``document`` as JSON, keys in their order; NaN and infinity raise ``ValueError``."""
    write(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object written by an earlier stage.

    Raises:
        UserError: the file is missing or not a JSON object; or, later, a missing key is looked up anywhere in it.
    """
    try:
        document = json.loads(read(path), object_hook=lambda items: _Record(path, items))
    except ValueError as error:
        raise corrupted(path, error) from error
    if not isinstance(document, dict):
        raise corrupted(path, "not a JSON object")
    return document


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write ``rows`` as CSV below a header of ``columns``; None is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write(path, text.getvalue().encode())


def read_csv(path: Path, text: Collection[str]) -> list[dict[str, Any]]:
    """Read the rows of a CSV file written by an earlier stage, as mappings from column to value.

    Args:
        path: the file.
        text: the columns to keep as text; the others hold numbers, True, False, or None where empty.

    Raises:
        UserError: the file is missing or corrupted; or, later, a missing column is looked up.
    """
    try:
        content = read(path).decode()
        if not content.endswith("\n"):
            raise ValueError("it ends in the middle of a line")
        columns, *lines = csv.reader(io.StringIO(content), strict=True)
        rows = [dict(zip(columns, line, strict=True)) for line in lines]
        return [_Record(path, {c: value if c in text else _number(value) for c, value in row.items()}) for row in rows]
    except (ValueError, csv.Error) as error:
        raise corrupted(path, error) from error


def _number(field: str) -> float | None:
    constants = {"": None, "True": True, "False": False}
    return constants[field] if field in constants else float(field)


def join_csv(paths: Sequence[Path], text: Collection[str]) -> bytes:
    """Join CSV files with the same columns into the content of one file.

    Raises:
        UserError: a file is missing or corrupted (see :func:`read_csv`), or has other columns than the first.
    """
    header, rows = b"", b""
    for path in paths:
        read_csv(path, text)  # raises if the file is corrupted
        columns, _, lines = read(path).partition(b"\n")
        if columns != (header or columns):
            raise corrupted(path, f"its columns differ from those of {paths[0]}")
        header, rows = columns, rows + lines
    return header + b"\n" + rows


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", about: Mapping[str, Any]) -> None:
    """Write ``tensors`` as safetensors, with ``about`` as JSON and a digest of both in the header."""
    import safetensors.torch

    # Cloned, because safetensors refuses tensors that share memory, as a network's parameters may.
    cloned = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    # Only one metadata key: safetensors writes several in an order that changes from run to run.
    metadata = {"about": json.dumps({"about": about, "sha256": _digest(cloned, about)}, allow_nan=False)}
    write(path, safetensors.torch.save(cloned, metadata))


def _digest(tensors: "Mapping[str, Tensor]", about: Mapping[str, Any]) -> str:
    import torch

    digest = hashlib.sha256(json.dumps(about).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Read the tensors and ``about`` of a file written by :func:`write_tensors`.

    Raises:
        UserError: the file is missing or corrupted.
    """
    import safetensors.torch

    content = read(path)
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = json.loads(header["__metadata__"]["about"])
        about, expected = metadata["about"], metadata["sha256"]
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise corrupted(path, error) from error
    if _digest(tensors, about) != expected:
        raise corrupted(path, "its digest does not match")
    return tensors, about
