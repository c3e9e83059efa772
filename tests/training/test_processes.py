import os
from functools import partial

import pytest
import torch

from cifar2.dataset import splits
from cifar2.errors import UserError
from cifar2.training import processes
from cifar2.training.loop import Diverged
from cifar2.training.run import Run
from tests.conftest import random_split
from tests.training.conftest import CONFIGURATION, PARAMS, SPLIT, but
from tools import compare


@pytest.fixture(autouse=True)
def two_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def loader(tmp_path):
    """A function that makes a run in any process."""
    inputs = [tmp_path / name for name in ("train", "val")]
    for path, split in zip(inputs, (SPLIT, random_split(40, 1)), strict=True):
        splits.save(path, split)
    return lambda configuration=CONFIGURATION: partial(Run.load, "x", configuration, PARAMS, inputs)


@pytest.mark.slow
@pytest.mark.skipif(not compare.is_amd(), reason="elsewhere the results depend on the threads of a process")
def test_seeds_side_by_side_have_the_results_of_one_by_one(loader, tmp_path):
    load = loader()
    expected, run = load(), load()
    one_by_one = list(expected.epochs([3, 1, 2]))
    together = list(processes.epochs(load, run, [3, 1, 2], tmp_path))
    assert sorted(together) == sorted(one_by_one)
    assert run.curves == expected.curves
    assert run.n_parameters == expected.n_parameters
    assert all(map(torch.equal, run.results(), expected.results()))
    for network, other in zip(run.networks, expected.networks, strict=True):
        assert all(map(torch.equal, network.state_dict().values(), other.state_dict().values()))


def test_the_first_seed_that_diverges_is_named(loader, tmp_path):
    load = loader(but(lr=1e30))
    run = load()
    with pytest.raises(Diverged, match=r"^seed 1, epoch 1"):
        list(processes.epochs(load, run, [1, 0, 2], tmp_path))
    assert (run.networks, len(run.curves)) == ([], 1)
    assert run.n_parameters > 0


def test_an_error_of_a_process_is_reported(loader, tmp_path):
    load = loader()
    (tmp_path / "seed1.safetensors").write_text("damaged")
    with pytest.raises(UserError, match=r"seed1.safetensors is corrupted"):
        list(processes.epochs(load, load(), [0, 1], tmp_path))


def test_a_process_that_ends_by_itself_is_reported(loader, tmp_path):
    with pytest.raises(UserError, match=r"^the process of seed \d ended by itself"):
        list(processes.epochs(partial(os._exit, 1), loader()(), [0, 1], tmp_path))


def test_one_core_trains_in_this_process(loader, tmp_path):
    torch.set_num_threads(1)
    run = loader()()
    list(processes.epochs(partial(os._exit, 1), run, [0, 1], tmp_path))
    assert len(run.networks) == 2
