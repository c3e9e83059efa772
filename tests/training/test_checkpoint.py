import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from cifar2.errors import UserError
from cifar2.training import checkpoint, fingerprint
from cifar2.training.checkpoint import Checkpoint

PARAMETERS = {"lr": 0.1, "seeds": [0, 1]}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data and code of its own."""
    monkeypatch.chdir(tmp_path)
    Path("data").write_bytes(b"images")
    Path("cifar2").mkdir()
    Path("cifar2/a.py").write_text("x = 1")
    Path("script.py").write_text("from cifar2 import a, b")
    monkeypatch.setattr(fingerprint, "PACKAGE", Path("cifar2"))


def kept(name="fine", parameters=PARAMETERS):
    return checkpoint.kept(name, parameters, [Path("data")], Path("script.py"))


def folder(**arguments):
    with kept(**arguments) as path:
        return path


def test_folder_is_named_after_configuration_and_fingerprint(here):
    assert folder().parent == Path(".checkpoints/fine")
    assert folder() == folder(parameters=dict(PARAMETERS))


@pytest.mark.parametrize(
    "change",
    [
        lambda: Path("data").write_bytes(b"imaget"),
        lambda: Path("script.py").write_text("from cifar2 import b, a"),
        lambda: Path("cifar2/a.py").write_text("x = 2"),
        lambda: Path("cifar2/b.py").write_text(""),
    ],
    ids=["data", "script", "module", "a new module"],
)
def test_other_data_or_code_have_another_folder(here, change):
    before = folder()
    change()
    assert folder() != before


def test_other_parameters_or_torch_have_another_folder(here, monkeypatch):
    assert folder(parameters=PARAMETERS | {"lr": 0.10000001}) != folder()
    before = folder()
    monkeypatch.setattr(torch, "__version__", "3.0")
    assert folder() != before


def test_code_that_is_not_imported_does_not_matter(here):
    before = folder()
    Path("cifar2/c.py").write_text("")
    assert folder() == before


def test_last_saved_checkpoint_is_loaded(tmp_path):
    checkpoint = Checkpoint(tmp_path / "fine/seed0.safetensors", seconds=0)
    assert checkpoint.load() is None
    for epoch in (1, 2):
        checkpoint.save([[epoch, 0.1]] * epoch, model={"a/w": torch.tensor([float(epoch)])}, best={})
    curve, tensors = checkpoint.load()
    assert curve == [[2, 0.1]] * 2
    assert tensors == {"model": {"a/w": torch.tensor([2.0])}, "best": {}}


def test_checkpoint_is_written_when_its_time_has_come(tmp_path, monkeypatch):
    now = 0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    checkpoint = Checkpoint(tmp_path / "seed0.safetensors", seconds=25)
    lengths = []
    for epoch in range(1, 8):
        now += 10
        checkpoint.save([[0]] * epoch)
        saved = checkpoint.load()
        lengths.append(len(saved.curve) if saved else None)
    assert lengths == [None, None, 3, 3, 3, 6, 6]


def test_corrupted_checkpoint_is_named_and_stays(tmp_path):
    checkpoint = Checkpoint(tmp_path / "seed0.safetensors", seconds=0)
    checkpoint.save([[0]], model={"w": torch.zeros(9)})
    content = bytearray(checkpoint.path.read_bytes())
    content[-3] ^= 1
    checkpoint.path.write_bytes(content)
    with pytest.raises(UserError, match=r"seed0.safetensors is corrupted .*delete it"):
        checkpoint.load()
    assert checkpoint.path.read_bytes() == content


def interrupted(parameters=PARAMETERS):
    """The checkpoint of a run of ``fine`` that was interrupted after its first epoch."""
    with suppress(KeyboardInterrupt), kept(parameters=parameters) as path:
        Checkpoint(path / "seed0.safetensors", seconds=0).save([[0]])
        raise KeyboardInterrupt
    return path / "seed0.safetensors"


def test_checkpoints_outlive_an_interruption_until_a_run_ends(here):
    others, own = interrupted(parameters={}), interrupted()
    with kept("fast"):
        pass
    with kept() as path:
        assert own == path / "seed0.safetensors"
        assert own.exists()
        assert others.exists()
    assert not Path(".checkpoints/fine").exists()


def test_two_processes_cannot_train_the_same_configuration(here):
    with kept():
        with pytest.raises(UserError, match=r"^another process is training fine here; let it finish"), kept():
            pass
        with kept("fast"):
            pass
    with kept():
        pass
