"""What goes wrong outside the code is injected into each stage: damage, full disks, folders that cannot be written.

And into DVC around them: damage in its cache and in a remote, two runs at once, a remote that goes away.
"""

import errno
import functools
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from cifar2 import files
from cifar2.dataset import cifar10
from cifar2.deploy import export
from cifar2.networks import classifier
from cifar2.report import page
from tests import clone
from tests.conftest import ROOT, Project
from tests.stages.test_prepare import DATA

SPLITS = ["data/prepared/train.safetensors", "data/prepared/val.safetensors"]
TEST = ["data/prepared/test.safetensors"]
# What each stage reads, less what it only hands on whole.
READ = {
    "check_params": [],
    "verify": SPLITS[:1],
    "features": SPLITS,
    "train fine": SPLITS,
    "train linear": ["data/features/train.safetensors", "data/features/val.safetensors"],
    # linear is the best of its family, where it is alone.
    "select_model": ["data/models/train/linear.safetensors", "metrics/train/fine.json", "metrics/curves/fine.csv"],
    "refit": ["data/models/selected.json", *SPLITS],
    "evaluate mlp": [*TEST, "data/prepared/near_duplicates.csv", "data/models/mlp.safetensors"],
    "export": [
        *TEST,
        "data/models/final.safetensors",
        "data/evaluated/final.safetensors",
        *(f"metrics/{name}.json" for name in ("prepare", "refit", "evaluate/final")),
    ],
    "report": [
        "data/models/final.safetensors",
        "data/models/mlp.safetensors",
        "data/evaluated/final.safetensors",
        *(f"metrics/{name}.json" for name in ("prepare", "verify", "select", "evaluate/mlp", "evaluate/final")),
        *(f"metrics/{name}.csv" for name in ("ranking", "curves", "evaluate/final_roc", "evaluate/final_calibration")),
    ],
}
DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "without its last byte": lambda content: content[:-2],
    # Which is no UTF-8 either.
    "flipped": lambda content: content[:50] + bytes([content[50] ^ 0x80]) + content[51:],
    "empty": lambda _: b"",
}


@pytest.fixture
def stage(run_stage):
    """Run a stage by its name and arguments."""

    def run(command):
        name, *arguments = command.split()
        run_stage(f"{name}.py", *arguments)

    return run


@pytest.fixture
def stage_fails(fails_with):
    def run(command):
        name, *arguments = command.split()
        return fails_with(f"{name}.py", *arguments)

    return run


@pytest.mark.parametrize("command", READ)
def test_damage_of_whatever_a_stage_reads_is_named_and_nothing_is_written(to_report, stage_fails, command):
    Path("data/verified.json").unlink()  # verify takes it away first
    before = to_report.snapshot()
    for name in READ[command]:
        for kind, damage in DAMAGES.items():
            files.write(Path(name), damage(before[name]))
            damaged = to_report.snapshot()
            assert f"error: {name} is damaged (" in stage_fails(command), kind
            assert to_report.snapshot() == damaged
        files.write(Path(name), before[name])


GATE = "data/verified.json"
STAGES = ["prepare", *(command for command in READ if command != "train linear")]
OF_EACH_STAGE = pytest.mark.parametrize("command", STAGES)


@pytest.fixture
def quick(to_report, monkeypatch):
    """The project with all that any stage reads, where drawing, rendering and exporting take no time."""
    monkeypatch.setattr(cifar10, "load", lambda *_: DATA)
    monkeypatch.setattr(Figure, "savefig", lambda _, content, **__: content.write(b"picture"))
    monkeypatch.setattr(page, "render", lambda *_: b"page")
    monkeypatch.setattr(export, "to_onnx", functools.cache(export.to_onnx))
    monkeypatch.setattr(classifier, "load", functools.cache(classifier.load))
    return to_report


def kept(project, command):
    """All files, but for checkpoints, which stay for the next try, and the gate, which verify closes first."""
    return {
        path: content
        for path, content in project.snapshot().items()
        if not path.startswith(".checkpoints") and not (path == GATE and command == "verify")
    }


def written(stage, command, monkeypatch):
    """What a stage writes, in order."""
    found, write = [], files.write
    with monkeypatch.context() as patch:
        patch.setattr(files, "write", lambda path, content: found.append(path) or write(path, content))
        stage(command)
    return found


def no_half_files():
    return not list(Path().rglob("*.partial"))


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=pytest.mark.slow) if c in ("prepare", "verify", "export") else c for c in STAGES],
)
def test_a_disk_that_is_full_at_any_write_takes_nothing_away(quick, stage, stage_fails, monkeypatch, command):
    paths = written(stage, command, monkeypatch)
    before = kept(quick, command)
    fsync = os.fsync
    for n, path in enumerate(paths):
        left = iter(range(n))

        def full(descriptor, left=left):
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(descriptor)

        shutil.rmtree(".checkpoints", ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert stage_fails(command) == f"error: {path} cannot be written: No space left on device"
        assert kept(quick, command) == before
        assert no_half_files()
    stage(command)
    assert kept(quick, command) == before


@pytest.mark.slow
@OF_EACH_STAGE
def test_a_disk_that_fills_up_within_a_file_takes_nothing_away(
    quick, stage, stage_fails, monkeypatch, small_files, command
):
    paths = written(stage, command, monkeypatch)
    before = kept(quick, command)
    largest = max((path for path in paths if path.exists()), key=lambda path: path.stat().st_size)
    quick.params["checkpoints"]["every"] = 100  # the checkpoint is larger
    quick.write_params()
    before["params.yaml"] = Path("params.yaml").read_bytes()
    with small_files(largest.stat().st_size - 1):
        assert stage_fails(command) == f"error: {largest} cannot be written: File too large"
    assert kept(quick, command) == before
    assert no_half_files()
    stage(command)
    assert kept(quick, command) == before


@pytest.mark.parametrize("command", ["train fine", "refit"])
def test_a_disk_that_fills_up_within_a_checkpoint_is_one_line_and_the_last_one_stays(
    selected, stage, stage_fails, monkeypatch, small_files, command
):
    first = written(stage, command, monkeypatch)[0]
    before = kept(selected, command)
    assert str(first).startswith(".checkpoints")
    with small_files(100_000):
        assert stage_fails(command) == f"error: {first} cannot be written: File too large"
    assert kept(selected, command) == before
    assert not first.exists()
    assert no_half_files()
    stage(command)
    assert kept(selected, command) == before


@pytest.mark.slow
@OF_EACH_STAGE
def test_a_folder_in_a_files_place_or_a_file_in_a_folders_is_named_and_stays(
    quick, stage, stage_fails, monkeypatch, command
):
    paths = [path for path in dict.fromkeys(written(stage, command, monkeypatch)) if path.exists()]
    before = kept(quick, command)
    for path in paths:
        path.unlink(missing_ok=True)
        path.mkdir()
        (path / "mine").write_text("mine")
        assert stage_fails(command).startswith(f"error: {path}")
        assert (path / "mine").read_text() == "mine"
        assert no_half_files()
        shutil.rmtree(path)
        if str(path) in before:
            path.write_bytes(before[str(path)])
        assert kept(quick, command) == before
    for folder in dict.fromkeys(path.parent for path in paths):
        folder.rename("aside")
        folder.write_text("mine")
        assert str(folder) in stage_fails(command)
        assert folder.read_text() == "mine"
        folder.unlink()
        Path("aside").rename(folder)
        assert kept(quick, command) == before
    stage(command)
    assert kept(quick, command) == before


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@OF_EACH_STAGE
def test_a_folder_that_may_not_be_written_is_named(quick, stage, stage_fails, monkeypatch, command):
    paths = written(stage, command, monkeypatch)
    before = kept(quick, command)
    for folder in dict.fromkeys(path.parent for path in paths if path.exists()):
        folder.chmod(0o555)
        message = stage_fails(command)
        folder.chmod(0o755)
        assert str(folder) in message
        assert "Permission denied" in message
        assert kept(quick, command) == before
    stage(command)
    assert kept(quick, command) == before


def flip(path, keep_mode=True):
    """Flip a bit near the end, whatever the file's mode; return what was there."""
    content, mode = path.read_bytes(), path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    if keep_mode:
        path.chmod(mode)
    return content


PIPELINE = """
stages:
  train:
    cmd: python stages/train.py fine
    params: [configs.fine, train]
    deps: [data/prepared/train.safetensors, data/prepared/val.safetensors]
    outs: [data/models/train/fine.safetensors]
    metrics: [metrics/train/fine.json: {cache: false}]
    plots: [metrics/curves/fine.csv: {cache: false}]
  select_model:
    cmd: python stages/select_model.py
    deps: [data/models/train, metrics/curves, metrics/train]
    outs: [data/models/mlp.safetensors, data/models/selected.json]
"""
MODEL = Path("data/models/train/fine.safetensors")
TRAIN = Path("data/prepared/train.safetensors")


class Repository:
    """A DVC repository with two stages of the project on its small data, which have run; and a remote."""

    def __init__(self, folder):
        self.folder, self.remote = folder, folder / "remote"

    def run(self, *command):
        return clone.run(self.folder, *command, check=False)

    def dvc(self, *arguments, fails=False):
        """What it printed."""
        done = self.run("dvc", *arguments)
        printed = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, printed
        assert "Traceback" not in printed
        return printed

    def stored(self, path, below=".dvc/cache"):
        """Where DVC keeps the content that the file now has."""
        md5 = hashlib.md5((self.folder / path).read_bytes()).hexdigest()
        return self.folder / below / "files/md5" / md5[:2] / md5[2:]

    def outputs(self):
        paths = [self.folder / "dvc.lock", *(p for top in ("data", "metrics") for p in (self.folder / top).rglob("*"))]
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in paths if p.is_file()}

    def is_clean(self):
        return self.dvc("status") == "Data and pipelines are up to date.\n"


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repository")
    project = Project(folder)
    project.params["configs"] = {"fine": project.params["configs"]["fine"]}
    project.params["extended"] = {}
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [lambda c: c.replace(b"0.", b"1.", 1), lambda c: c[:-9], lambda c: c + b"\xb5"],
    ids=["changed", "truncated", "not text"],
)
@pytest.mark.parametrize("name", ["metrics/train/fine.json", "metrics/curves/fine.csv"])
def test_a_metrics_file_that_was_changed_is_named_by_dvc_and_made_right(repository, name, damage):
    before = repository.outputs()
    path = repository.folder / name
    path.write_bytes(damage(path.read_bytes()))
    assert f"modified:           {name}" in repository.dvc("status")
    repository.dvc("repro")
    assert repository.outputs() == before
    assert repository.is_clean()


@pytest.mark.slow
def test_a_damaged_model_in_dvcs_cache_is_handed_on_by_no_stage_and_the_advice_helps(repository):
    """DVC takes what is write-protected for whole, and finds nothing: our digest does."""
    before = repository.outputs()
    path = repository.folder / MODEL
    flip(repository.stored(MODEL))
    path.unlink()
    repository.dvc("checkout")
    assert path.read_bytes() != before[str(MODEL)]
    assert repository.is_clean()
    printed = repository.dvc("repro", "--force", "--single-item", "select_model", fails=True)
    assert f"error: {MODEL} is damaged (its digest does not match); delete it" in printed
    assert "failed to reproduce 'select_model'" in printed
    assert not (repository.folder / "data/models/mlp.safetensors").exists()
    # As the message says.
    assert "`chmod -R u+w .dvc/cache`" in printed
    path.unlink()
    clone.run(repository.folder, "chmod", "-R", "u+w", ".dvc/cache")
    repository.dvc("repro")
    assert repository.outputs() == before
    assert repository.is_clean()


@pytest.mark.slow
def test_damaged_pictures_in_dvcs_cache_are_not_trained_on_and_a_remote_has_them_whole(repository):
    repository.dvc("push")
    before = repository.outputs()
    flip(repository.stored(TRAIN))
    (repository.folder / TRAIN).unlink()
    repository.dvc("checkout")
    printed = repository.dvc("repro", "--force", "train", fails=True)
    assert f"error: {TRAIN} is damaged (its digest does not match)" in printed
    assert "epoch" not in printed
    assert not (repository.folder / MODEL).exists()
    (repository.folder / TRAIN).unlink()
    clone.run(repository.folder, "chmod", "-R", "u+w", ".dvc/cache")
    repository.dvc("pull")
    repository.dvc("repro")
    assert repository.outputs() == before


@pytest.mark.slow
def test_a_damaged_object_in_dvcs_cache_that_is_not_write_protected_is_thrown_away_by_dvc(repository):
    before = repository.outputs()
    stored = repository.stored(MODEL)
    flip(stored, keep_mode=False)
    (repository.folder / MODEL).unlink()
    printed = repository.dvc("repro")
    assert "Running stage 'train'" in printed
    assert repository.outputs() == before
    assert stored.read_bytes() == before[str(MODEL)]


@pytest.mark.slow
def test_of_two_runs_at_once_one_is_told_so_and_the_other_is_unharmed(repository):
    before = repository.outputs()
    with ThreadPoolExecutor() as pool:
        dvc = partial(clone.run, repository.folder, "dvc", "repro", "--force", check=False)
        runs = [pool.submit(dvc) for _ in range(2)]
    first, second = sorted((run.result() for run in runs), key=lambda done: done.returncode)
    assert first.returncode == 0
    assert second.returncode != 0
    assert re.search(r"ERROR: .*(is busy, it is being blocked by|Unable to acquire lock)", second.stderr)
    assert "Traceback" not in second.stderr
    assert repository.outputs() == before
    assert repository.is_clean()


N_OBJECTS = 300


@pytest.fixture
def large(repository):
    """With so much in DVC that one can get between."""
    folder = repository.folder / "large"
    folder.mkdir()
    generator = random.Random(0)
    for i in range(N_OBJECTS):
        (folder / str(i)).write_bytes(generator.randbytes(100_000))
    repository.dvc("add", "--quiet", "large")
    return repository


def objects(folder):
    return [path for path in folder.rglob("*") if path.is_file() and path.parent.parent.name == "md5"]


def are_whole(folder):
    """All under their final names; what was being written has another."""
    return all(
        hashlib.md5(path.read_bytes()).hexdigest() == path.parent.name + path.name.removesuffix(".dir")
        for path in objects(folder)
        if path.suffix != ".tmp"
    )


def go_away_in_the_middle_of(command, repository, target):
    """Run it; when ``target`` has a tenth of the objects a file takes the remote's place."""
    aside = repository.folder / "aside"
    dvc = subprocess.Popen(
        ["dvc", command, "large"],
        cwd=repository.folder,
        env=clone.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while dvc.poll() is None and len(objects(target)) < N_OBJECTS / 10:
        time.sleep(0.005)
    # Stopped meanwhile: it would make the remote's folder anew between the two, or be done.
    dvc.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, dvc.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    repository.remote.rename(aside)
    repository.remote.write_text("")
    dvc.send_signal(signal.SIGCONT)
    said = dvc.communicate()
    repository.remote.unlink()
    aside.rename(repository.remote)
    return subprocess.CompletedProcess(dvc.args, dvc.returncode, *said)


@pytest.mark.slow
def test_a_remote_that_goes_away_in_the_middle_of_a_push_keeps_nothing_half_written_for_whole(large):
    done = go_away_in_the_middle_of("push", large, large.remote)
    assert done.returncode != 0
    assert "ERROR: failed to push data to the cloud" in done.stderr
    assert "Traceback" not in done.stderr
    assert N_OBJECTS / 10 <= len(objects(large.remote)) < N_OBJECTS
    assert are_whole(large.remote)
    large.dvc("push", "large")
    assert are_whole(large.remote)
    before = {path.name: path.read_bytes() for path in (large.folder / "large").iterdir()}
    for path in (large.folder / "large", large.folder / ".dvc/cache"):
        shutil.rmtree(path)
    large.dvc("pull", "large")
    assert {path.name: path.read_bytes() for path in (large.folder / "large").iterdir()} == before


@pytest.mark.slow
def test_a_remote_that_goes_away_in_the_middle_of_a_pull_is_told_and_the_next_try_works(large):
    large.dvc("push", "large")
    before = {path.name: path.read_bytes() for path in (large.folder / "large").iterdir()}
    cache = large.folder / ".dvc/cache"
    for path in (large.folder / "large", cache):
        shutil.rmtree(path)
    done = go_away_in_the_middle_of("pull", large, cache)
    assert done.returncode != 0
    assert "ERROR: " in done.stderr
    assert "Traceback" not in done.stderr
    assert 0 < len(objects(cache)) < N_OBJECTS
    assert are_whole(cache)
    large.dvc("pull", "large")
    assert are_whole(cache)
    assert {path.name: path.read_bytes() for path in (large.folder / "large").iterdir()} == before


@pytest.fixture
def half_remote(repository):
    """A remote where an object lost its second half; everything here is to be pulled."""
    repository.dvc("push")
    stored = repository.stored(TRAIN, "remote")
    content = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(content[:100_000])
    stored.chmod(0o444)
    shutil.rmtree(repository.folder / ".dvc/cache")
    (repository.folder / TRAIN).unlink()
    return repository, stored, content


@pytest.mark.slow
def test_half_an_object_in_a_remote_is_not_trained_on(half_remote):
    repository, *_ = half_remote
    repository.dvc("pull")
    printed = repository.dvc("repro", "--force", "train", fails=True)
    assert f"error: {TRAIN} is damaged (" in printed
    assert "epoch" not in printed


@pytest.mark.slow
def test_half_an_object_in_a_remote_that_dvc_is_to_verify_is_not_even_pulled(half_remote):
    repository, stored, content = half_remote
    repository.dvc("remote", "modify", "team", "verify", "true")
    printed = repository.dvc("pull", fails=True)
    assert "ERROR: failed to pull data from the cloud" in printed
    assert str(TRAIN) in printed
    assert not (repository.folder / TRAIN).exists()
    stored.chmod(0o644)
    stored.write_bytes(content)
    repository.dvc("pull")
    assert (repository.folder / TRAIN).read_bytes() == content
    assert repository.is_clean()
