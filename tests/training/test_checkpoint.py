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
    Path("data").write_bytes(b"pictures")
    Path("cifar2").mkdir()
    Path("cifar2/a.py").write_text("x = 1")
    Path("script.py").write_text("from cifar2 import a, b")
    monkeypatch.setattr(fingerprint, "PACKAGE", Path("cifar2"))


def kept(name="fine", parameters=PARAMETERS):
    return checkpoint.kept(name, parameters, [Path("data")], Path("script.py"))


def folder(**arguments):
    with kept(**arguments) as found:
        return found


def test_the_folder_is_named_after_the_configuration_and_all_that_its_runs_depend_on(here):
    assert folder().parent == Path(".checkpoints/fine")
    assert folder() == folder(parameters=dict(PARAMETERS))


@pytest.mark.parametrize(
    "change",
    [
        lambda: Path("data").write_bytes(b"picturet"),
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


def test_code_that_it_does_not_import_has_no_say(here):
    before = folder()
    Path("cifar2/c.py").write_text("")
    assert folder() == before


def test_other_parameters_or_another_torch_have_another_folder(here, monkeypatch):
    assert folder(parameters=PARAMETERS | {"lr": 0.10000001}) != folder()
    before = folder()
    monkeypatch.setattr(torch, "__version__", "3.0")
    assert folder() != before


def test_what_is_loaded_is_what_was_saved_last(tmp_path):
    kept = Checkpoint(tmp_path / "fine/seed0.safetensors", every=1)
    assert kept.load() is None
    for epoch in (1, 2):
        kept.save(epoch, {"w": torch.tensor([float(epoch)])}, {"curve": [[epoch, 0.1]]})
    tensors, about = kept.load()
    assert about.pop("epoch") == 2
    assert tensors["w"].item() == 2
    assert about == {"curve": [[2, 0.1]]}


def test_one_is_written_after_so_many_epochs(tmp_path):
    kept = Checkpoint(tmp_path / "seed0.safetensors", every=3)
    found = []
    for epoch in range(1, 8):
        kept.save(epoch, {}, {"epoch": epoch})
        found.append(kept.load() and kept.load()[1]["epoch"])
    assert found == [None, None, 3, 3, 3, 6, 6]


def test_a_damaged_one_is_named_and_stays(tmp_path):
    kept = Checkpoint(tmp_path / "seed0.safetensors", every=1)
    kept.save(1, {"w": torch.zeros(9)}, {})
    content = bytearray(kept.path.read_bytes())
    content[-3] ^= 1
    kept.path.write_bytes(content)
    with pytest.raises(UserError, match=r"seed0.safetensors is damaged .*delete it"):
        kept.load()
    assert kept.path.read_bytes() == content


def leave(parameters=PARAMETERS):
    """What a run of ``fine`` leaves that is stopped after its first epoch."""
    with suppress(KeyboardInterrupt), kept(parameters=parameters) as found:
        Checkpoint(found / "seed0.safetensors", 1).save(1, {}, {})
        raise KeyboardInterrupt
    return found / "seed0.safetensors"


def test_they_stay_when_a_run_is_stopped_and_go_when_it_ends_whatever_they_depended_on(here):
    others, own = leave(parameters={}), leave()
    with kept("fast"), kept() as found:
        assert own == found / "seed0.safetensors"
        assert own.exists()
        assert others.exists()
    assert not Path(".checkpoints/fine").exists()


def test_those_of_another_configuration_stay(here):
    own = leave()
    with kept("fast"):
        pass
    assert own.exists()


def test_two_processes_do_not_train_the_same_configuration_at_once(here):
    with kept():
        with pytest.raises(UserError, match=r"^another process is training fine here; let it finish"), kept():
            pass
        with kept("fast"):
            pass
    with kept():
        pass
