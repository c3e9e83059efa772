"""Checkpoints: a training run that was killed goes on from its last one, and ends with the same bits.

They lie in a folder named after a hash of all that a run depends on: its parameters, its data, its code.  Those of any
other run have another name, and are never read.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cifar2 import files

# Outside of what DVC knows, which deletes the outputs of a stage before it runs.
FOLDER = Path(".checkpoints")
CODE = Path(__file__).parent


def folder(name: str, parameters: Mapping[str, Any], inputs: Iterable[Path]) -> Path:
    """Where the checkpoints of ``name``'s runs belong.

    Args:
        name: of the configuration, or ``final``.
        parameters: whatever the runs depend on, as JSON can tell it.
        inputs: the files that they learn from.
    """
    about = {"parameters": parameters, "torch": torch.__version__}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for path in [*inputs, *sorted(CODE.glob("*.py"))]:
        digest.update(hashlib.sha256(files.read(path)).digest())
    return FOLDER / name / digest.hexdigest()[:16]


class Checkpoint(NamedTuple):
    """The checkpoint of one run: its file, and how many epochs lie between two writes."""

    path: Path
    every: int

    def save(self, epoch: int, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keep the state after ``epoch`` instead of the last, if it is its turn."""
        if epoch % self.every == 0:
            files.write_tensors(self.path, tensors, about)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was last saved, if anything.

        Raises:
            UserError: the file is damaged.
        """
        if not self.path.exists():
            return None
        print(f"going on from {self.path}", flush=True)
        return files.read_tensors(self.path)


def clear(name: str) -> None:
    """Forget the checkpoints of ``name``: its outputs are written."""
    shutil.rmtree(FOLDER / name, ignore_errors=True)
