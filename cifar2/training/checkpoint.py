"""Checkpoints: an interrupted training run resumes from its last one, and its result is bit-identical.

Their folder is named after the fingerprint of the run.  A run with other parameters, data or code has another
folder, and never reads them.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from tqdm import tqdm

from cifar2 import files
from cifar2.errors import UserError
from cifar2.training.fingerprint import fingerprint

# Not a DVC output: DVC deletes a stage's outputs before running it.
FOLDER = Path(".checkpoints")


@contextmanager
def kept(name: str, parameters: Mapping[str, Any], inputs: Iterable[Path], script: Path) -> Iterator[Path]:
    """A folder for the checkpoints of ``name``, deleted when the block ends without an error.

    Args:
        name: name of the configuration, or ``final``.
        parameters: parameters of the run (see ``fingerprint``).
        inputs: data files of the run.
        script: the script of the stage.

    Raises:
        UserError: another process trains ``name`` in this workspace, for example one whose ``dvc repro`` was killed.
    """
    folder = FOLDER / name / fingerprint(parameters, inputs, script)
    folder.mkdir(parents=True, exist_ok=True)
    # A lock ends with its process, even by `kill -9` (flock(2)).
    lock = os.open(FOLDER / name, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
        shutil.rmtree(FOLDER / name)
    except BlockingIOError:
        raise UserError(f"another process is training {name} here; let it finish, or end it, then run again") from None
    finally:
        os.close(lock)


class Saved(NamedTuple):
    """The content of a checkpoint: the rows of the curve, and groups of tensors by name."""

    curve: list[list[Any]]
    tensors: dict[str, dict[str, Tensor]]


class Checkpoint:
    """The checkpoint file of one run.

    Args:
        path: path of the file.
        seconds: time from one checkpoint to the next, at least.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self._due = time.monotonic() + seconds

    def save(self, curve: Sequence[Sequence[Any]], **tensors: Mapping[str, Tensor]) -> None:
        """Replace the checkpoint by the state after the last epoch of ``curve``, if it is due."""
        if time.monotonic() >= self._due:
            flat = {f"{group}/{name}": t for group, by_name in tensors.items() for name, t in by_name.items()}
            files.write_tensors(self.path, flat, {"curve": curve, "groups": list(tensors)})
            self._due = time.monotonic() + self.seconds

    def load(self) -> Saved | None:
        """The last checkpoint, if there is one.

        Raises:
            UserError: the file is corrupted.
        """
        if not self.path.exists():
            return None
        flat, about = files.read_tensors(self.path)
        with tqdm.external_write_mode():  # on a line of its own, above a progress bar
            print(f"resuming after epoch {len(about['curve'])}, from {self.path}", flush=True)
        tensors: dict[str, dict[str, Tensor]] = {group: {} for group in about["groups"]}
        for key, tensor in flat.items():
            group, _, name = key.partition("/")
            tensors[group][name] = tensor
        return Saved(about["curve"], tensors)
