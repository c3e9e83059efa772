"""Two small pipelines like the project's: one with a folder that is only in DVC, and an extended one."""

import re
import shutil
from pathlib import Path

import pytest
from dvc.fs.dvc import DVCFileSystem
from dvc.repo import Repo

from tests.clone import run
from tests.conftest import ROOT
from tools.stale import main, stale

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
    "extended/dvc.yaml": """
stages:
  train:
    cmd: cd .. && python train.py extended/data/longer.bin extended/metrics/train/b.json
    params: [../params.yaml: [lr]]
    deps: [../data/models/a.bin, ../train.py]
    outs: [data/longer.bin]
    metrics: [metrics/train/b.json: {cache: false}]
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


def small_pipelines(factory: pytest.TempPathFactory) -> Path:
    """A repository of these files, run and committed once per session."""
    folder = factory.getbasetemp() / "pipelines"
    if folder.exists():
        return folder
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    run(folder, "dvc", "init", "--quiet")
    run(folder / "extended", "dvc", "init", "--quiet", "--subdir")
    for project in (folder, folder / "extended"):
        run(project, "dvc", "repro", "--quiet")
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


def stale_stages(project: str = "") -> dict[str, list[str]]:
    with Repo() as root, Repo(project or None) as repo:
        return stale(repo, DVCFileSystem(repo=root, subrepos=True))


def both() -> list[dict[str, list[str]]]:
    """For the default pipeline and the extended one."""
    return [stale_stages(), stale_stages("extended")]


@pytest.mark.slow
def test_a_clone_without_data_is_up_to_date(clone, committed):
    assert not list(clone.rglob("*.bin"))
    assert both() == [{}, {}]
    for project in ("", "extended"):  # with a cache, but without `dvc checkout`
        run(clone / project, "dvc", "cache", "dir", "--local", str(committed / project / ".dvc/cache"))
    assert both() == [{}, {}]


def test_a_repository_with_data_is_up_to_date(committed, monkeypatch):
    monkeypatch.chdir(committed)
    assert both() == [{}, {}]


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("params.yaml", "lr: 0.1", "lr: 0.2", {"train": ["lr"]}),
        ("params.yaml", "other: 1", "other: 2", {}),
        ("train.py", "1 - lr", "2 - lr", {"train": ["train.py"]}),
        ("dvc.yaml", "cmd: cp", "cmd: cp -f", {"select": ["select's command"]}),
        ("metrics/train.json", "0.9", "0.95", {"train": ["metrics/train.json"]}),
        ("metrics/figures/curve.png", "0.9", "0.95", {"train": ["metrics/figures/curve.png"]}),
    ],
)
def test_a_change_is_reported_with_the_stages_that_use_it(clone, name, old, new, expected):
    replace(name, old, new)
    assert stale_stages() == expected


def test_a_result_missing_in_git_is_reported(clone):
    Path("metrics/train.json").unlink()
    assert stale_stages() == {"train": ["metrics/train.json"]}


def test_a_stage_is_stale_after_its_input_folder_changed(clone):
    """Whether the folder exists, is empty, or is missing."""
    lock = Path("dvc.lock").read_text()
    (md5,) = re.findall(r"path: data/models/a.bin\n.*\n +md5: (\w+)", lock)
    Path("dvc.lock").write_text(lock.replace(md5, "d" * 32))
    expected = {"select": ["data/models"]}
    assert stale_stages() == expected
    shutil.rmtree("data/models")
    assert stale_stages() == expected


def test_a_new_stage_and_its_dependents_are_stale(clone):
    replace("dvc.yaml", "stages:", f"stages:{ANOTHER_STAGE}")
    assert stale_stages() == {
        "train_more": ["train.py", "data/models/b.bin"],
        "select": ["data/models/b.bin"],
    }


def test_a_new_extended_stage_names_its_inputs_from_the_project(clone):
    replace("extended/dvc.yaml", "  train:", "  train_more:")
    (changed,) = stale_stages("extended").values()
    assert changed == ["data/models/a.bin", "train.py", "params.yaml", "data/longer.bin", "metrics/train/b.json"]


def test_stages_are_listed_before_a_line_with_the_fix(clone, capsys):
    replace("params.yaml", "lr: 0.1", "lr: 0.2")
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == (
        "error: lr changed since dvc.lock was written: `dvc repro`, "
        "then commit dvc.lock and metrics (CONTRIBUTING.md says when `dvc commit` will do)"
    )
    assert capsys.readouterr().out.startswith("train must run again: lr\nwarning: the extended pipeline")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["params.yaml", "train.py"])
def test_a_stale_extended_pipeline_is_a_warning(clone, capsys, name):
    """As after a change followed by `dvc repro`."""
    replace("params.yaml", "lr: 0.1", "lr: 0.2") if name == "params.yaml" else replace(name, "1 - lr", "2 - lr")
    run(clone, "dvc", "repro", "--quiet")
    changed = "lr" if name == "params.yaml" else name
    assert stale_stages() == {}
    main()
    warning, summary = capsys.readouterr().out.splitlines()
    assert warning == (
        f"warning: the extended pipeline is stale (data/models/a.bin, {changed} changed)"
        "; `make extended` runs it in an hour or two"
    )
    assert summary == "dvc.lock is up to date with the code and parameters"


def test_a_lock_with_merge_conflicts_is_one_line(clone):
    replace("dvc.lock", "stages:", "<<<<<<< HEAD\nstages:")
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == "error: unable to read: 'dvc.lock', YAML file structure is corrupted"
