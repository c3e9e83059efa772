"""Two stages of the project in a DVC repository of their own, and an empty home directory."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from tests import clone
from tests.conftest import ROOT, Project

SPLITS = ["data/prepared/train.safetensors", "data/prepared/val.safetensors"]
PIPELINE = """
stages:
  train:
    cmd: python stages/train.py fine
    params: [configs.fine, train]
    deps: [data/prepared/train.safetensors, data/prepared/val.safetensors]
    outs: [data/models/train/fine.safetensors, data/validated/fine.safetensors]
    metrics: [metrics/train/fine.json: {cache: false}]
    plots: [metrics/curves/fine.csv: {cache: false}]
  select_model:
    cmd: python stages/select_model.py
    deps: [data/models/train, data/validated, metrics/curves, metrics/train]
    outs: [data/models/mlp.safetensors, data/models/selected/final.json]
"""
MODEL = Path("data/models/train/fine.safetensors")
TRAIN = Path("data/prepared/train.safetensors")


class Repository:
    """A DVC repository with two stages of the project, which have run on small data, and a remote."""

    def __init__(self, folder):
        self.folder, self.remote = folder, folder / "remote"

    def run(self, *command):
        return clone.run(self.folder, *command, check=False)

    def dvc(self, *arguments, fails=False):
        """Run DVC; returns what it printed."""
        done = self.run("dvc", *arguments)
        printed = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, printed
        assert "Traceback" not in printed
        return printed

    def stored(self, path, below=".dvc/cache"):
        """DVC's copy of the file's present content."""
        md5 = hashlib.md5((self.folder / path).read_bytes()).hexdigest()
        return self.folder / below / "files/md5" / md5[:2] / md5[2:]

    def outputs(self):
        paths = [self.folder / "dvc.lock", *(p for top in ("data", "metrics") for p in (self.folder / top).rglob("*"))]
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in paths if p.is_file()}

    def is_clean(self):
        return self.dvc("status") == "Data and pipelines are up to date.\n"


@pytest.fixture(scope="session")
def committed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    project = Project(folder)
    project.params["configs"] = {"fine": project.params["configs"]["fine"]}
    variants = {"base": "fine", "changes": {"slow": {"lr": 0.001}}}
    project.params["extended"] = {
        "configs": {},
        "ablation": {"downwards": variants, "upwards": variants | {"changes": {"fast": {"lr": 0.1}}}},
        "replication": {"configs": ["fine"], "n_seeds": 2},
    }
    project.params["sweep"] |= {"base": "fine", "space": {"lr": {"uniform": [0.001, 0.1]}}}
    project.write_params()
    for name in ("cifar2", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / ".gitignore").write_text("__pycache__/\n.checkpoints/\nremote/\n")
    clone.run(folder, "git", "init", "--quiet")
    clone.run(folder, "dvc", "init", "--quiet")
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    repository = Repository(folder)
    repository.dvc("remote", "add", "--default", "team", "remote")
    repository.dvc("add", *SPLITS)
    clone.run(folder, "git", "add", ".")
    clone.run(folder, "git", "commit", "--quiet", "-m", "data")
    repository.dvc("repro")
    clone.run(folder, "git", "add", ".")
    clone.run(folder, "git", "commit", "--quiet", "-m", "results")
    return repository


@pytest.fixture
def repository(committed, tmp_path):
    shutil.copytree(committed.folder, tmp_path / "repository")
    return Repository(tmp_path / "repository")


@pytest.fixture
def home(tmp_path_factory, monkeypatch):
    """An empty home directory."""
    folder = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith("XDG_")]:
        monkeypatch.delenv(name)
    # Set by cifar2 in this process; a user's process starts without them.
    for name in ("ORT_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED", "DVC_NO_ANALYTICS", "MPL_IGNORE_SYSTEM_FONTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    return folder


def written(folder):
    return [str(path.relative_to(folder)) for path in folder.rglob("*")]
