"""A small pull request: like the project's, a pipeline with a folder that only DVC has, and another one beyond it."""

import re
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from tests.clone import run
from tests.conftest import ROOT
from tools.stale import main, message, stale

FILES = {
    "dvc.yaml": """
stages:
  train:
    cmd: python train.py data/models/a.bin metrics/train.json metrics/figures/curve.png
    params: [lr]
    deps: [train.py]
    outs: [data/models/a.bin]
    metrics: [metrics/train.json: {cache: false}]
    plots: [metrics/figures/curve.png: {cache: false}]
  select:
    cmd: cp data/models/a.bin data/selected.bin
    deps: [data/models]
    outs: [data/selected.bin]
""",
    "beyond/dvc.yaml": """
stages:
  ablate:
    wdir: ..
    cmd: python train.py beyond/data/ablated.bin beyond/metrics/train/b.json
    params: [lr]
    deps: [data/models, train.py]
    outs: [beyond/data/ablated.bin, beyond/metrics/train/b.json: {cache: false}]
""",
    "train.py": """
import json, pathlib, sys
lr = float(pathlib.Path("params.yaml").read_text().split()[1])
for path in map(pathlib.Path, sys.argv[1:]):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"accuracy": 1 - lr, "of": path.stem}))
""",
    "params.yaml": "lr: 0.1\nother: 1\n",
    ".dvcignore": (ROOT / ".dvcignore").read_text(),
}
ANOTHER_STAGE = """
  train_more:
    cmd: python train.py data/models/b.bin
    deps: [train.py]
    outs: [data/models/b.bin]
"""
SWEEP = """
  sweep:
    cmd: python train.py data/sweep.bin metrics/sweep.json
    params: [lr]
    deps: [train.py, data/models]
    outs: [data/sweep.bin]
    metrics: [metrics/sweep.json: {cache: false}]
"""
ABLATE = "beyond/dvc.yaml:ablate"


def small_pipelines(factory: pytest.TempPathFactory) -> Path:
    """A repository of those files, run and committed, once a session."""
    folder = factory.getbasetemp() / "pipelines"
    if folder.exists():
        return folder
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "dvc", "repro", "--quiet", "--all-pipelines")
    commit(folder, "results")
    return folder


def commit(folder: Path, text: str) -> None:
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "--quiet", "--message", text)


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    return small_pipelines(tmp_path_factory)


@pytest.fixture
def clone(committed, tmp_path, monkeypatch):
    """Without any data."""
    run(tmp_path, "git", "clone", "--quiet", str(committed), "clone")
    monkeypatch.chdir(tmp_path / "clone")
    return tmp_path / "clone"


def replace(name: str, old: str, new: str) -> None:
    text = Path(name).read_text()
    assert old in text
    Path(name).write_text(text.replace(old, new))


def found() -> dict[str, list[str]]:
    with Repo() as repo:
        return stale(repo)


def test_a_clone_without_data_is_not_stale_when_its_lock_is_of_its_code(clone):
    assert not list((clone / "data").rglob("*.bin"))
    assert found() == {}


def test_nor_is_one_whose_cache_has_what_nobody_checked_out(clone, committed):
    run(clone, "dvc", "cache", "dir", "--local", str(committed / ".dvc/cache"))
    assert found() == {}


def test_nor_is_the_repository_that_has_the_data(committed, monkeypatch):
    monkeypatch.chdir(committed)
    assert found() == {}


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("params.yaml", "lr: 0.1", "lr: 0.2", {"train": ["lr"], ABLATE: ["lr"]}),
        ("params.yaml", "other: 1", "other: 2", {}),
        ("train.py", "1 - lr", "2 - lr", {"train": ["train.py"], ABLATE: ["train.py"]}),
        ("dvc.yaml", "cmd: cp", "cmd: cp -f", {"select": ["select's command"]}),
        ("metrics/train.json", "0.9", "0.95", {"train": ["metrics/train.json"]}),
        ("metrics/figures/curve.png", "0.9", "0.95", {"train": ["metrics/figures/curve.png"]}),
    ],
)
def test_what_changed_is_told_with_the_stages_that_use_it(clone, name, old, new, expected):
    replace(name, old, new)
    assert found() == expected


def test_a_result_that_is_no_longer_in_git_is_told(clone):
    Path("metrics/train.json").unlink()
    assert found() == {"train": ["metrics/train.json"]}


def test_a_run_of_one_stage_alone_leaves_those_stale_that_depend_on_the_folder_it_writes_to(clone):
    """Whether the folder is there, empty, or not."""
    lock = Path("dvc.lock").read_text()
    (md5,) = re.findall(r"path: data/models/a.bin\n.*\n +md5: (\w+)", lock)
    Path("dvc.lock").write_text(lock.replace(md5, "d" * 32))
    expected = {"select": ["data/models"], ABLATE: ["data/models"]}
    assert found() == expected
    shutil.rmtree("data/models")
    assert found() == expected


def test_a_stage_that_never_ran_is_told_and_so_is_what_depends_on_it(clone):
    replace("dvc.yaml", "stages:", f"stages:{ANOTHER_STAGE}")
    assert found() == {
        "train_more": ["train.py", "data/models/b.bin"],
        "select": ["data/models/b.bin"],
        ABLATE: ["data/models/b.bin"],
    }


def test_of_a_frozen_stage_the_command_and_the_results_count_alone(clone):
    replace("dvc.yaml", "stages:", f"stages:{SWEEP}")
    run(clone, "dvc", "repro", "--quiet", "sweep")
    shutil.rmtree(".dvc/cache")
    shutil.rmtree("data")
    assert found() == {}
    replace("train.py", "1 - lr", "2 - lr")
    assert found().keys() == {"train", "sweep", ABLATE}
    replace("dvc.yaml", "sweep:", "sweep:\n    frozen: true")
    assert found().keys() == {"train", ABLATE}
    replace("dvc.yaml", "sweep.json\n    params", "sweep.json more.json\n    params")
    replace("metrics/sweep.json", "0.9", "0.95")
    assert found()["sweep"] == ["metrics/sweep.json", "sweep's command"]


def test_one_line_says_what_changed_and_what_to_do_after_one_for_each_stage(clone, capsys):
    replace("params.yaml", "lr: 0.1", "lr: 0.2")
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == (
        "error: lr changed since dvc.lock was written: `dvc repro dvc.yaml beyond/dvc.yaml`, "
        "then commit dvc.lock and metrics (CONTRIBUTING.md says when `dvc commit` will do)"
    )
    assert capsys.readouterr().out == f"train must run again: lr\n{ABLATE} must run again: lr\n"


def test_only_the_pipelines_with_something_stale_are_to_be_run():
    assert "`dvc repro dvc.yaml`" in message({"train": ["lr"]})
    assert "`dvc repro beyond/dvc.yaml`" in message({ABLATE: ["lr"]})


def test_a_lock_that_git_could_not_merge_is_one_line(clone):
    replace("dvc.lock", "stages:", "<<<<<<< HEAD\nstages:")
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == "error: unable to read: 'dvc.lock', YAML file structure is corrupted"
