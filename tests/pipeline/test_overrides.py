"""`dvc exp run --set-param` changes the lines of the named values in params.yaml, and no other line."""

import difflib
import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from cifar2 import params
from tests.conftest import ROOT

SLOW = "{model: mlp,family: mlp,input: prepared,lr: 0.003,momentum: 0.9,weight_decay: 0.001}"
# What is set, the lines that go, and the lines that come.
KINDS = {
    "a number": ("configs.fine.lr=0.02", ["    lr: 0.01"], ["    lr: 0.02"]),
    "a small number": (
        "verify.autograd_tolerance=1e-11",
        ["  autograd_tolerance: 1e-12"],
        [" autograd_tolerance: 1e-11"],
    ),
    "a word": ("train.device=auto", ["  device: cpu"], ["  device: auto"]),
    "a truth value": ("refit.include_val=true", ["  include_val: false"], ["  include_val: true"]),
    "a list": ("data.classes=[cat,dog,frog]", ["  - airplane", "  - bird"], ["  - cat", "  - dog", "  - frog"]),
    "a shorter list": ("train.seeds=[0]", ["  - 1", "  - 2"], []),
    "a section's last list": ("normalise.std=[0.5,0.5,0.2]", ["  - 0.5"], ["  - 0.2"]),
    "the file's last list": ("sweep.seeds=[0,1]", [], ["  - 1"]),
    "a list deep within": ("sweep.space.lr.log_uniform=[0.01,0.2]", ["      - 0.3"], ["      - 0.2"]),
    "a mapping for nothing": (
        "sweep.asha={grace_epochs: 5,reduction_factor: 3}",
        [],
        ["    grace_epochs: 5", "    reduction_factor: 3"],
    ),
    "a new key": ("+configs.fine.epochs=10", [], ["    epochs: 10"]),
    "a key less": ("~configs.augmented.jitter", ["    jitter: 0.1"], []),
    "a new configuration": (
        f"+configs.slow={SLOW}",
        [],
        ["  slow:", *(f"    {pair}" for pair in SLOW.strip("{}").split(","))],
    ),
    "an extended configuration": ("extended.configs.convolutional.channels=[24,48]", ["      - 96", "      - 192"], []),
}


@pytest.fixture
def path(tmp_path):
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path))


def lines(path):
    return path.read_text().splitlines()


def changes(before, after):
    """The lines that went and those that came."""
    compared = list(difflib.ndiff(before, after))
    return [[line[2:] for line in compared if line[0] == sign] for sign in "-+"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_override_changes_its_own_lines(path, kind):
    override, gone, come = KINDS[kind]
    before = lines(path)
    apply_overrides(path, [override])
    after = lines(path)
    assert [sorted(map(str.strip, found)) for found in changes(before, after)] == [
        sorted(map(str.strip, found)) for found in (gone, come)
    ]
    params.load(path)
    # A second one finds a file that DVC has written.
    apply_overrides(path, ["configs.balanced.momentum=0.5"])
    assert changes(after, lines(path)) == [["    momentum: 0.85"], ["    momentum: 0.5"]]


def test_no_comment_is_lost_by_all_overrides_in_turn(path):
    before = lines(path)
    for override, *_ in KINDS.values():
        apply_overrides(path, [override])
    comments = [line for line in before if line.lstrip().startswith("#")]
    assert [line for line in lines(path) if line.lstrip().startswith("#")] == comments
    assert len(comments) > 50


def test_a_list_is_followed_by_a_key(path):
    """What follows a list otherwise belongs to it, and goes with it."""
    for line, following in zip(lines(path), lines(path)[1:], strict=False):
        if line.lstrip().startswith("- "):
            assert following.strip(), line
            assert not following.lstrip().startswith("#"), line
