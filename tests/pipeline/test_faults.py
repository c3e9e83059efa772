"""Faults outside the code, injected into each stage and into DVC: corrupted files, full disks, read-only folders."""

import errno
import functools
import os
import re
import shutil
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
from tests.pipeline.conftest import MODEL, SPLITS, TRAIN
from tests.stages.test_prepare import DATA

TEST = ["data/prepared/test.safetensors"]
# What each stage reads, without files that it only copies.
READ = {
    "check_params": [],
    "verify": SPLITS[:1],
    "features": SPLITS,
    "train fine": SPLITS,
    "train linear": ["data/features/train.safetensors", "data/features/val.safetensors"],
    # linear is the best of its family, being the only one in it.
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
    "flipped": lambda content: content[:50] + bytes([content[50] ^ 0x80]) + content[51:],  # not UTF-8 either
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
def test_a_corrupted_or_missing_input_is_named(to_report, stage_fails, command):
    Path("data/verified.json").unlink()  # verify deletes it first
    before = to_report.snapshot()
    for name in READ[command]:
        for kind, damage in DAMAGES.items():
            files.write(Path(name), damage(before[name]))
            corrupted = to_report.snapshot()
            assert f"error: {name} is corrupted (" in stage_fails(command), kind
            assert to_report.snapshot() == corrupted, "nothing is written"
        Path(name).unlink()
        missing = to_report.snapshot()
        assert f"error: {name} is missing; `dvc repro` makes it" in stage_fails(command)
        assert to_report.snapshot() == missing
        files.write(Path(name), before[name])


GATE = "data/verified.json"
STAGES = ["prepare", *(command for command in READ if command != "train linear")]


@pytest.fixture
def quick(to_report, monkeypatch):
    """The project before report, with stubs for what takes long: drawing, rendering and exporting."""
    monkeypatch.setattr(cifar10, "load", lambda *_: DATA)
    monkeypatch.setattr(Figure, "savefig", lambda _, content, **__: content.write(b"image"))
    monkeypatch.setattr(page, "render", lambda *_: b"page")
    monkeypatch.setattr(export, "to_onnx", functools.cache(export.to_onnx))
    monkeypatch.setattr(classifier, "load", functools.cache(classifier.load))
    return to_report


def kept(project, command):
    """All files except checkpoints, which the next run resumes from, and the gate, which verify deletes first."""
    return {
        path: content
        for path, content in project.snapshot().items()
        if not path.startswith(".checkpoints") and not (path == GATE and command == "verify")
    }


def written(stage, command, monkeypatch):
    """The paths that a stage writes, in order."""
    paths, write = [], files.write
    with monkeypatch.context() as patch:
        patch.setattr(files, "write", lambda path, content: paths.append(path) or write(path, content))
        stage(command)
    return paths


def no_half_files():
    return not list(Path().rglob("*.partial"))


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=pytest.mark.slow) if c in ("prepare", "verify", "export") else c for c in STAGES],
)
def test_a_full_disk_at_any_write_changes_nothing(quick, stage, stage_fails, monkeypatch, command):
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


@pytest.mark.parametrize("command", ["train fine", "refit"])
def test_a_full_disk_within_a_checkpoint_is_one_line(selected, stage, stage_fails, monkeypatch, small_files, command):
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(selected, stage_fails):
    folder = Path("metrics/train")
    before = kept(selected, "train fine")
    folder.chmod(0o555)
    message = stage_fails("train fine")
    folder.chmod(0o755)
    assert re.match(f"error: {folder}/.+ cannot be written: Permission denied", message)
    assert kept(selected, "train fine") == before


def flip(path):
    """Flip a bit near the end of a file, and keep its mode."""
    content, mode = path.read_bytes(), path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    path.chmod(mode)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("metrics/train/fine.json", lambda content: content.replace(b"0.", b"1.", 1)),
        ("metrics/curves/fine.csv", lambda content: content[:-9]),
    ],
    ids=["changed", "truncated"],
)
def test_a_changed_metrics_file_is_restored_by_dvc_repro(repository, name, damage):
    before = repository.outputs()
    path = repository.folder / name
    path.write_bytes(damage(path.read_bytes()))
    assert f"modified:           {name}" in repository.dvc("status")
    repository.dvc("repro")
    assert repository.outputs() == before
    assert repository.is_clean()


@pytest.mark.slow
def test_a_corrupted_model_in_dvcs_cache_is_named_with_a_fix(repository):
    """DVC trusts write-protected files; our digest detects the change."""
    before = repository.outputs()
    path = repository.folder / MODEL
    flip(repository.stored(MODEL))
    path.unlink()
    repository.dvc("checkout")
    assert path.read_bytes() != before[str(MODEL)]
    assert repository.is_clean()
    printed = repository.dvc("repro", "--force", "--single-item", "select_model", fails=True)
    assert f"error: {MODEL} is corrupted (its digest does not match); delete it" in printed
    assert "failed to reproduce 'select_model'" in printed
    assert not (repository.folder / "data/models/mlp.safetensors").exists()
    # As the message advises:
    assert "`chmod -R u+w .dvc/cache`" in printed
    path.unlink()
    clone.run(repository.folder, "chmod", "-R", "u+w", ".dvc/cache")
    repository.dvc("repro")
    assert repository.outputs() == before
    assert repository.is_clean()


@pytest.mark.slow
def test_a_second_run_at_once_fails_without_harm(repository):
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


@pytest.mark.slow
def test_a_truncated_object_in_a_remote_is_not_trained_on(repository):
    repository.dvc("push")
    stored = repository.stored(TRAIN, "remote")
    content = stored.read_bytes()
    stored.chmod(0o644)
    stored.write_bytes(content[:100_000])
    stored.chmod(0o444)
    shutil.rmtree(repository.folder / ".dvc/cache")
    (repository.folder / TRAIN).unlink()
    repository.dvc("pull")
    printed = repository.dvc("repro", "--force", "train", fails=True)
    assert f"error: {TRAIN} is corrupted (" in printed
    assert "epoch" not in printed
    # With the option that the README advises, DVC does not even pull it.
    repository.dvc("remote", "modify", "team", "verify", "true")
    shutil.rmtree(repository.folder / ".dvc/cache")
    (repository.folder / TRAIN).unlink()
    assert "ERROR: failed to pull data from the cloud" in repository.dvc("pull", fails=True)
    assert not (repository.folder / TRAIN).exists()
    stored.chmod(0o644)
    stored.write_bytes(content)
    repository.dvc("pull")
    assert (repository.folder / TRAIN).read_bytes() == content
