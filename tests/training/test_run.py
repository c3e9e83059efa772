import pytest
import torch

from cifar2.networks import classifier
from cifar2.params import Transfer
from cifar2.training import hardware, record
from cifar2.training.loop import Diverged
from cifar2.training.run import Run
from tests.conftest import random_features, random_split
from tests.training.conftest import CONFIGURATION, CONVOLUTIONAL, HYPERPARAMETERS, PARAMS, SPLIT, but, fit

VAL = random_split(40, 1)
LINEAR = Transfer(model="transfer", family="transfer", input="features", **HYPERPARAMETERS)


def run(configuration=CONFIGURATION, val=VAL):
    return Run("x", configuration, PARAMS, SPLIT, val)


def test_run_trains_a_network_for_each_seed(train, val):
    training = run()
    assert training.n_parameters == 0
    epochs = list(training.epochs([3, 1]))
    networks, curves = zip(*(fit(train, val, seed=seed) for seed in (3, 1)), strict=True)
    assert epochs == [epoch for curve in curves for epoch in curve]
    assert training.curves == list(curves)
    for network, expected in zip(training.networks, networks, strict=True):
        assert all(map(torch.equal, network.state_dict().values(), expected.state_dict().values()))
    assert training.n_parameters == classifier.n_parameters(networks[0])
    assert training.card == classifier.describe("x", CONFIGURATION, PARAMS, SPLIT)
    expected = record.results(curves, networks, train, val, CONFIGURATION)
    assert all(map(torch.equal, training.results(), expected))
    assert training.kept_epochs == [curve[-1].epoch for curve in curves]


def test_run_may_have_no_validation_set():
    training = run(val=None)
    assert {epoch.val_loss for epoch in training.epochs([0])} == {None}


def test_run_keeps_what_was_finished_before_it_diverged():
    training = run(but(lr=1e30))
    with pytest.raises(Diverged):
        list(training.epochs([0, 1]))
    assert (training.networks, len(training.curves)) == ([], 1)
    assert training.n_parameters > 0


def test_each_seed_resumes_from_a_checkpoint_of_its_own(tmp_path):
    straight = list(run().epochs([0, 1]))
    interrupted = run().epochs([0, 1], tmp_path)
    for _ in range(4):
        next(interrupted)
    interrupted.close()
    assert {path.name for path in tmp_path.iterdir()} == {"seed0.safetensors", "seed1.safetensors"}
    resumed = list(run().epochs([0, 1], tmp_path))
    assert resumed == straight
    assert [epoch.resumed for epoch in resumed] == [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("configuration", "split", "threads"),
    [
        (CONFIGURATION, SPLIT, []),
        (LINEAR, random_features(SPLIT, PARAMS.features, 0), []),
        (CONVOLUTIONAL, SPLIT, [3]),
    ],
)
def test_number_of_threads_is_fixed_for_convolutions_only(monkeypatch, configuration, split, threads):
    fixed = []
    monkeypatch.setattr(hardware, "fix_threads", fixed.append)
    params = PARAMS.model_copy(update={"train": PARAMS.train.model_copy(update={"threads": 3})})
    Run("x", configuration, params, split, None)
    assert fixed == threads
