"""A small copy of the project to run stages in: few random pictures, small networks, few epochs."""

import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from cifar2 import dataset

ROOT = Path(__file__).parent.parent
SIZES = {"train": 60, "val": 24, "test": 30}


def random_split(n: int, seed: int, classes: tuple[str, ...] = ("airplane", "bird")) -> dataset.Split:
    """Random pictures whose brightness tells the class, so that a network can learn it."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(classes), (n,), generator=generator)
    noise = torch.randint(0, 100, (n, 3, 32, 32), generator=generator)
    images = (noise + 120 * labels.view(-1, 1, 1, 1) // (len(classes) - 1)).to(torch.uint8)
    return dataset.Split(images, labels, torch.arange(n), classes)


class Project:
    """The working directory of a test, with params.yaml and prepared data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.params = yaml.safe_load((ROOT / "params.yaml").read_text())
        self.params["train"] |= {"hidden": [8, 8], "epochs": 2, "batch_size": 16, "seeds": [0, 1]}
        self.params["verify"] |= {
            "depths": [1, 2],
            "widths": [3],
            "batch_sizes": [1, 4],
            "sgd_steps": 5,
            "directions": 2,
        }
        self.write_params()
        for seed, (name, n) in enumerate(SIZES.items()):
            dataset.save(folder / f"data/prepared/{name}.safetensors", random_split(n, seed))

    def write_params(self) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params, sort_keys=False))

    def snapshot(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def run_stage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script of stages/ in this process, as ``python stages/NAME ARGUMENTS`` would."""

    def run(name: str, *arguments: str) -> None:
        script = ROOT / "stages" / name
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        runpy.run_path(str(script), run_name="__main__")

    return run


@pytest.fixture
def fails_with(run_stage: Callable[..., None]) -> Callable[..., str]:
    """Run a stage that must fail: one line starting with "error: ", which is exit code 1; returns the line."""

    def run(name: str, *arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            run_stage(name, *arguments)
        message = stop.value.code
        assert isinstance(message, str), "sys.exit with a text is exit code 1 and that text on stderr"
        assert message.startswith("error: ")
        assert "\n" not in message
        return message

    return run


@pytest.fixture
def trained(project: Project, run_stage: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after ``train`` for every configuration."""
    cache = tmp_path_factory.getbasetemp() / "trained"
    if not cache.exists():
        for name in project.params["configs"]:
            run_stage("train.py", name)
        shutil.copytree(project.folder, cache)
    shutil.copytree(cache, project.folder, dirs_exist_ok=True)
    return project
