import pytest
import torch

from cifar2 import inplace
from cifar2.inplace import InPlace
from cifar2.losses import smooth_labels
from cifar2.sgd import SGD
from cifar2.sgdcheck import REGULARISED, VARIANTS, inplace_difference, trajectory_difference


@pytest.fixture
def data():
    torch.manual_seed(0)
    return torch.randn(64, 12), torch.randint(2, (64,))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sgd_and_torchs_sgd_have_the_same_trajectory(data, name, dtype):
    x, y = data
    assert trajectory_difference(x.to(dtype), y, 2, VARIANTS[name], steps=20, seed=0) == 0


correct_step = SGD.step


def forget(**forgotten):
    """A step that takes other hyperparameters than the given ones."""

    def step(self):
        self.param_groups[0].update(forgotten)
        correct_step(self)

    return step


FORGOTTEN = {
    "weight decay": (forget(weight_decay=0.0), {"weight_decay": 0.01}),
    "momentum": (forget(momentum=0.0), {"momentum": 0.9}),
    "nesterov": (forget(nesterov=False), VARIANTS["nesterov and weight decay"]),
    "schedule": (forget(lr=0.02), {}),
}


@pytest.mark.parametrize("name", FORGOTTEN)
def test_hyperparameter_forgotten_by_sgd_is_caught(data, monkeypatch, name):
    wrong, hyperparameters = FORGOTTEN[name]
    monkeypatch.setattr(SGD, "step", wrong)
    assert trajectory_difference(*data, 2, hyperparameters, steps=3, seed=0) > 1e-6


def difference(data, **settings):
    x, y = data
    return inplace_difference(x.double(), y, (12, 8, 2), "relu", batch_size=24, epochs=3, seed=0, **settings)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("regularised", [{}, REGULARISED], ids=["plain", "regularised"])
def test_in_place_epoch_matches_backpropagation_and_sgd(data, name, regularised):
    before = torch.get_rng_state()
    assert difference(data, **VARIANTS[name], **regularised) < 1e-14
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["momentum", "weight_decay", "dropout"])
def test_hyperparameter_ignored_in_place_is_caught(data, monkeypatch, name):
    def step(self, *arguments):
        setattr(self, name, 0.0)
        correct_step(self, *arguments)

    correct_step = InPlace._step
    monkeypatch.setattr(InPlace, "_step", step)
    assert difference(data, momentum=0.9, weight_decay=0.01, **REGULARISED) > 1e-5


UPDATE = InPlace._update
WRONG_IN_PLACE = {
    "label smoothing ignored": (inplace, "smooth_labels", lambda y, n, _, *rest: smooth_labels(y, n, 0.0, *rest)),
    "learning rate ignored": (InPlace, "_update", lambda self, _: UPDATE(self, 0.02)),
    "nan": (InPlace, "_update", lambda self, _: self.p.fill_(float("nan"))),
}


@pytest.mark.parametrize("wrong", WRONG_IN_PLACE.values(), ids=WRONG_IN_PLACE)
def test_wrong_epoch_in_place_is_caught(data, monkeypatch, wrong):
    monkeypatch.setattr(*wrong)
    assert not difference(data, **REGULARISED) <= 1e-5
