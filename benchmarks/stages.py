"""Time and memory of each stage, the time until training starts, and that of `dvc repro`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
import yaml
from ruamel.yaml import YAML

from benchmarks.epoch import BY_HAND
from benchmarks.measure import Row, interleaved, row, seconds
from cifar2.dataset.examples import CPU
from cifar2.errors import UserError
from cifar2.params import Params
from cifar2.training import hardware

ROOT = Path(__file__).parent.parent
# A pseudo-stage that only imports torch.
IMPORT_TORCH = "import-torch"
ROUNDS = 5
# The configuration that is changed, and how often.
CHANGED, CHANGES = "fast", 3


def probe(folder: Path, *stage: str, until_training: bool = False) -> dict[str, float]:
    """Run a stage in ``folder`` under :mod:`benchmarks.probe`, and return what that prints."""
    option = ["--until-training"] if until_training else []
    printed = run([sys.executable, "-m", "benchmarks.probe", *option, *stage], folder)
    reported: dict[str, float] = json.loads(printed.splitlines()[-1])
    return reported


def run(command: list[str], folder: Path = ROOT, **environment: str) -> str:
    """Run a command in ``folder`` with the project's modules, and return what it prints.

    Raises:
        UserError: it failed; the message ends with its last line.
    """
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return done.stdout


def scratch(folder: Path, **train: object) -> None:
    """Copy the inputs of the stages into ``folder``, with other values for ``train`` in its params.yaml."""
    for name in ("data", "metrics"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["train"] |= BY_HAND | train
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def check() -> None:
    """Check that this is Linux, and that the pipeline is up to date.

    Raises:
        UserError: it is not.
    """
    if sys.platform != "linux":
        raise UserError("`make bench` reads /proc, which only Linux has")
    if json.loads(run(["dvc", "status", "--json", "dvc.yaml"])):
        raise UserError("the pipeline is not up to date; run `make repro`, then `make bench`")


def rows(params: Params) -> list[Row]:
    """The rows about the pipeline."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scratch(folder, seeds=params.train.seeds[:1])  # which trains in the process that is measured
        found += [*_start(folder), *_memory(folder)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scratch(folder)
        found += _stages(folder)
    if hardware.product_dtype("bfloat16", CPU) == torch.bfloat16:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            scratch(folder, precision="bfloat16")
            found += _bfloat16_accuracy(folder)
    with tempfile.TemporaryDirectory() as name:
        found += _change_one(Path(name))
    return found + _dvc()


def _start(folder: Path) -> list[Row]:
    train = ("stages/train.py", "fine")
    found = interleaved(
        {
            "first step": lambda: probe(folder, *train, until_training=True)["wall"],
            "import": lambda: probe(folder, IMPORT_TORCH)["wall"],
        },
        ROUNDS,
    )
    return [
        row(
            "startup_vs_import_torch",
            "from process start to the first training step, against `import torch` alone",
            found["first step"],
            found["import"],
            "s",
            "<= 1.3",
        )
    ]


def _memory(folder: Path) -> list[Row]:
    return [
        row(
            "train_memory",
            "peak memory of training one seed above that of `import torch` alone, against 450 MiB",
            [probe(folder, "stages/train.py", "fine")["peak_mib"] - probe(folder, IMPORT_TORCH)["peak_mib"]],
            [450.0],
            "MiB",
            "<= 1",
        )
    ]


def _stages(folder: Path) -> list[Row]:
    """Each stage once: ours is the stage, and the rival a bare ``import torch``."""
    stages = [
        ("stages/prepare.py",),
        ("stages/verify.py",),
        ("stages/near_duplicates.py",),
        ("stages/features.py", "val"),
        ("stages/train.py", "fine"),
        ("stages/select_model.py",),
        ("stages/refit.py", "final"),
        ("stages/evaluate.py", "data/models/mlp.safetensors"),
        ("stages/export.py",),
        ("stages/report.py",),
    ]
    found = []
    for stage in stages:
        bare, reported = probe(folder, IMPORT_TORCH), probe(folder, *stage)
        name = "_".join([Path(stage[0]).stem, *(Path(argument).stem for argument in stage[1:])])
        parts: dict[str, Any] = {part: reported[part] for part in ("start_up", "input", "work", "output")}
        found += [
            row(
                f"stage_{name}",
                f"stage {name} against `import torch` alone",
                [reported["wall"]],
                [bare["wall"]],
                "s",
                **parts,
            ),
            row(
                f"memory_{name}",
                f"peak memory of stage {name} against `import torch` alone",
                [reported["peak_mib"]],
                [bare["peak_mib"]],
                "MiB",
            ),
        ]
    return found


def _bfloat16_accuracy(folder: Path) -> list[Row]:
    """The accuracy of a configuration with bfloat16 products, against the committed one in float32."""
    path = "metrics/train/fine.json"
    exact = json.loads((folder / path).read_text())
    probe(folder, "stages/train.py", "fine")
    rounded = json.loads((folder / path).read_text())
    return [
        row(
            "bf16_accuracy",
            "validation accuracy of `fine` over its seeds, bfloat16 against float32",
            [rounded["val_accuracy"]],
            [exact["val_accuracy"]],
            "accuracy",
            ours_se=rounded["val_accuracy_se"],
            rival_se=exact["val_accuracy_se"],
        )
    ]


def _change_one(folder: Path) -> list[Row]:
    """One changed configuration: from ``dvc repro`` to updated metrics, against the training alone."""
    run(["git", "clone", "--quiet", str(ROOT), str(folder)])
    run(["dvc", "cache", "dir", "--local", str(ROOT / ".dvc/cache")], folder)
    run(["dvc", "checkout", "--quiet"], folder)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    rates = count(1)

    def repro() -> None:
        # Another learning rate each time, as DVC remembers the results of those before.
        params["configs"][CHANGED]["lr"] = next(rates) / 1000
        yaml.dump(params, folder / "params.yaml")
        run(["dvc", "repro"], folder)

    found = interleaved(
        {
            "repro": partial(seconds, repro),
            "training": lambda: probe(folder, "stages/train.py", CHANGED)["work"],
        },
        CHANGES,
        warm_up=0,
    )
    return [
        row(
            "change_one",
            f"`dvc repro` after a change of `{CHANGED}`, against its training alone",
            found["repro"],
            found["training"],
            "s",
            "<= 1.25",
        )
    ]


def _dvc() -> list[Row]:
    found = interleaved({"nothing": partial(seconds, lambda: run(["dvc", "repro"]))}, ROUNDS)
    return [
        row(
            "repro_nothing_to_do",
            "`dvc repro` with nothing to do, against 1.5 s",
            found["nothing"],
            [1.5] * ROUNDS,
            "s",
            "<= 1",
        )
    ]
