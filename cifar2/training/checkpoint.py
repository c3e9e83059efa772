"""Checkpoints: a training run that was killed goes on from its last one, and ends with the same bits.

They lie in a folder named after a hash of all that a run depends on: its parameters, its data, its code.  Those of any
other run have another name, and are never read.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic_core import to_json
from torch import Tensor
from tqdm import tqdm

from cifar2 import files
from cifar2.errors import UserError
from cifar2.training import fingerprint

# Outside of what DVC knows, which deletes the outputs of a stage before it runs.
FOLDER = Path(".checkpoints")


@contextmanager
def kept(name: str, parameters: Mapping[str, Any], inputs: Iterable[Path], script: Path) -> Iterator[Path]:
    """A folder for the checkpoints of ``name``'s runs, which goes when the block ends well: their outputs are written.

    Args:
        name: of the configuration, or ``final``.
        parameters: whatever the runs depend on: numbers, texts, lists, pydantic's models.
        inputs: the files that they learn from.
        script: what trains.

    Raises:
        UserError: another process trains ``name`` in this workspace, as one may whose ``dvc repro`` was killed alone.
    """
    folder = FOLDER / name / digest(parameters, inputs, script)
    folder.mkdir(parents=True, exist_ok=True)
    # The lock of a process ends with it, however that ends (flock(2)).
    lock = os.open(FOLDER / name, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
        shutil.rmtree(FOLDER / name)
    except BlockingIOError:
        raise UserError(f"another process is training {name} here; let it finish, or end it, then run again") from None
    finally:
        os.close(lock)


def digest(parameters: Mapping[str, Any], inputs: Iterable[Path], script: Path) -> str:
    """16 hexadecimal digits for the parameters, the inputs' content, the code of ``script`` and of all that it imports.

    And for torch's version.

    Raises:
        UserError: an input is missing.
    """
    found = hashlib.sha256(to_json({"parameters": parameters, "torch": torch.__version__}))
    for path in [*inputs, script, *sorted(fingerprint.modules(script))]:
        found.update(hashlib.sha256(files.read(path)).digest())
    return found.hexdigest()[:16]


class Checkpoint(NamedTuple):
    """The checkpoint of one run: its file, and how many epochs lie between two writes."""

    path: Path
    every: int

    def save(self, epoch: int, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keep the state after ``epoch`` instead of the last, if it is its turn."""
        if epoch % self.every == 0:
            files.write_tensors(self.path, tensors, {"epoch": epoch, **about})

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was last saved, if anything.

        Raises:
            UserError: the file is damaged.
        """
        if not self.path.exists():
            return None
        tensors, about = files.read_tensors(self.path)
        with tqdm.external_write_mode():  # on a line of its own, above a progress bar
            print(f"resuming after epoch {about['epoch']}, from {self.path}", flush=True)
        return tensors, about
