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
# What each script of a stage reads, without files that it only copies.
READ = {
    "check_params.py": [],
    "near_duplicates.py": [*SPLITS, *TEST],
    "verify.py": SPLITS[:1],
    "features.py val": SPLITS[1:],
    "train.py fine": SPLITS,
    "train.py linear": ["data/features/train.safetensors", "data/features/val.safetensors"],
    # linear is the best of its family, being the only one in it.
    "select_model.py": [
        "data/models/train/linear.safetensors",
        "data/validated/fine.safetensors",
        "metrics/train/fine.json",
        "metrics/curves/fine.csv",
    ],
    "refit.py final": ["data/models/selected/final.json", *SPLITS],
    "evaluate.py data/models/mlp.safetensors": [
        *TEST,
        "data/prepared/near_duplicates.csv",
        "data/models/mlp.safetensors",
    ],
    "export.py": [
        *TEST,
        "data/models/final.safetensors",
        "data/evaluated/final.safetensors",
        *(f"metrics/{name}.json" for name in ("prepare", "refit/final", "evaluate/final")),
    ],
    "report.py": [
        "data/models/final.safetensors",
        "data/models/mlp.safetensors",
        "data/evaluated/final.safetensors",
        "data/evaluated/mlp.safetensors",
        *(f"metrics/{name}.json" for name in ("prepare", "near_duplicates", "verify", "select", "evaluate/mlp")),
        "metrics/evaluate/final.json",
        *(f"metrics/{name}.csv" for name in ("ranking", "curves", "evaluate/final_roc", "evaluate/final_calibration")),
    ],
}
DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:50] + bytes([content[50] ^ 0x80]) + content[51:],  # not UTF-8 either
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("command", READ)
def test_a_corrupted_or_missing_input_is_named(to_report, fails_with, command):
    Path("data/verified.json").unlink()  # verify deletes it first
    before = to_report.snapshot()
    for name in READ[command]:
        for kind, damage in DAMAGES.items():
            files.write(Path(name), damage(before[name]))
            corrupted = to_report.snapshot()
            assert f"error: {name} is corrupted (" in fails_with(*command.split()), kind
            assert to_report.snapshot() == corrupted, "nothing is written"
        Path(name).unlink()
        missing = to_report.snapshot()
        assert f"error: {name} is missing; `dvc repro` makes it" in fails_with(*command.split())
        assert to_report.snapshot() == missing
        files.write(Path(name), before[name])


GATE = "data/verified.json"
STAGES = ["prepare.py", *(command for command in READ if command != "train.py linear")]


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
        if not path.startswith(".checkpoints") and not (path == GATE and command == "verify.py")
    }


def written(run_stage, command, monkeypatch):
    """The paths that a stage writes, in order."""
    paths, write = [], files.write
    with monkeypatch.context() as patch:
        patch.setattr(files, "write", lambda path, content: paths.append(path) or write(path, content))
        run_stage(*command.split())
    return paths


def no_half_files():
    return not list(Path().rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=pytest.mark.slow) if c in ("prepare.py", "verify.py", "export.py") else c for c in STAGES],
)
def test_a_full_disk_at_any_write_changes_nothing(quick, run_stage, fails_with, monkeypatch, command):
    paths = written(run_stage, command, monkeypatch)
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
            assert fails_with(*command.split()) == f"error: {path} cannot be written: No space left on device"
        assert kept(quick, command) == before
        assert no_half_files()
    run_stage(*command.split())
    assert kept(quick, command) == before


@pytest.mark.parametrize("command", ["train.py fine", "refit.py final"])
def test_a_full_disk_within_a_checkpoint_is_one_line(
    selected, run_stage, fails_with, monkeypatch, small_files, command
):
    first = written(run_stage, command, monkeypatch)[0]
    before = kept(selected, command)
    assert str(first).startswith(".checkpoints")
    with small_files(100_000):
        assert fails_with(*command.split()) == f"error: {first} cannot be written: File too large"
    assert kept(selected, command) == before
    assert not first.exists()
    assert no_half_files()
    run_stage(*command.split())
    assert kept(selected, command) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(selected, fails_with):
    folder = Path("metrics/train")
    before = kept(selected, "train.py fine")
    folder.chmod(0o555)
    message = fails_with("train.py", "fine")
    folder.chmod(0o755)
    assert re.match(f"error: {folder}/.+ cannot be written: Permission denied", message)
    assert kept(selected, "train.py fine") == before


def overwrite(path, content):
    """Replace the content of a write-protected file."""
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


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
    content = before[str(MODEL)]
    overwrite(repository.stored(MODEL), content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    path.unlink()
    repository.dvc("checkout")
    assert path.read_bytes() != content
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
    overwrite(stored, content[:100_000])
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
    overwrite(stored, content)
    repository.dvc("pull")
    assert (repository.folder / TRAIN).read_bytes() == content
