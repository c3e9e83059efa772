import pytest
import torch

from cifar2 import inplace
from cifar2.inplace import InPlace
from cifar2.mynet import smoothed
from cifar2.sgd import SGD
from cifar2.sgdcheck import REGULARISED, VARIANTS, inplace_difference, trajectory_difference


@pytest.fixture
def data():
    torch.manual_seed(0)
    return torch.randn(64, 12), torch.randint(2, (64,))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_trajectories_are_equal(data, name, dtype):
    x, y = data
    assert trajectory_difference(x.to(dtype), y, 2, VARIANTS[name], steps=20, seed=0) == 0


def seeded_with_zero(self, params, grads, momentum):
    """The velocity starts as zero and the first gradient is lost.  (Zero plus that gradient would be right.)"""
    fresh = [p for p in params if not self.state[p]]
    right(self, params, grads, momentum)
    for p in fresh:
        self.state[p]["momentum_buffer"].zero_()


right = SGD._accumulate


def decayed_velocity(self, params, grads, momentum):
    """Weighs the new gradient by 1 - momentum, as some other libraries do."""
    right(self, params, [g * (1 - momentum) for g in grads], momentum)


@pytest.mark.parametrize("wrong", [seeded_with_zero, decayed_velocity])
def test_a_wrong_velocity_is_caught(data, monkeypatch, wrong):
    monkeypatch.setattr(SGD, "_accumulate", wrong)
    assert trajectory_difference(*data, 2, {"momentum": 0.9}, steps=3, seed=0) > 1e-6


def test_weight_decay_that_is_forgotten_is_caught(data, monkeypatch):
    update = SGD._update
    monkeypatch.setattr(SGD, "_update", lambda *a, weight_decay, **k: update(*a, weight_decay=0, **k))
    assert trajectory_difference(*data, 2, {"weight_decay": 0.01}, steps=3, seed=0) > 1e-6


def difference(data, regularised=None, **hyperparameters):
    x, y = data
    return inplace_difference(
        x.double(), y, (12, 8, 2), "relu", hyperparameters, batch_size=24, epochs=3, seed=0, **regularised or {}
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_training_in_place_is_backpropagation_and_sgd(data, name):
    assert difference(data, **VARIANTS[name]) < 1e-14


@pytest.mark.parametrize("name", VARIANTS)
def test_with_dropout_and_label_smoothing_it_is_too(data, name):
    before = torch.get_rng_state()
    assert difference(data, REGULARISED, **VARIANTS[name]) < 1e-14
    assert torch.equal(torch.get_rng_state(), before)


def test_units_that_training_in_place_forgets_to_drop_are_caught(data, monkeypatch):
    def step(self, *arguments):
        self.dropout = 0.0
        right_step(self, *arguments)

    right_step = InPlace._step
    monkeypatch.setattr(InPlace, "_step", step)
    assert difference(data, REGULARISED) > 1e-5


def test_labels_that_training_in_place_forgets_to_smooth_are_caught(data, monkeypatch):
    monkeypatch.setattr(inplace, "smoothed", lambda y, n, _, dtype: smoothed(y, n, 0.0, dtype))
    assert difference(data, REGULARISED) > 1e-5


def test_a_learning_rate_that_training_in_place_forgets_is_caught(data, monkeypatch):
    right_update = InPlace._update
    monkeypatch.setattr(InPlace, "_update", lambda self, _: right_update(self, 0.02))
    assert difference(data) > 1e-5


@pytest.mark.parametrize("forgotten", ["momentum", "weight_decay"])
def test_a_hyperparameter_that_training_in_place_forgets_is_caught(data, monkeypatch, forgotten):
    def step(self, *arguments):
        setattr(self, forgotten, 0.0)
        right_step(self, *arguments)

    right_step = InPlace._step
    monkeypatch.setattr(InPlace, "_step", step)
    assert difference(data, momentum=0.9, weight_decay=0.01) > 1e-5


def test_training_in_place_that_ends_in_no_number_is_caught(data, monkeypatch):
    monkeypatch.setattr(InPlace, "_update", lambda self, _: self.p.fill_(float("nan")))
    assert not difference(data) <= 1e-12
