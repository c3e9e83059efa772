from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from cifar2.descent import GradientDescent, by_autograd, by_backpropagation
from cifar2.inplace import InPlace
from cifar2.mynet import MyNet
from cifar2.sgdcheck import VARIANTS

N, BATCH_SIZE = 50, 16
RATES = [0.1, 0.0, 0.02, 0.3]
EACH_METHOD = pytest.mark.parametrize("set_gradients", [by_backpropagation, by_autograd])
generator = torch.Generator().manual_seed(0)
X, Y = torch.randn(N, 3, 2, 2, generator=generator, dtype=torch.float64), torch.randint(3, (N,), generator=generator)
ORDERS = [torch.randperm(N, generator=generator) for _ in range(3)]


def network():
    torch.manual_seed(0)
    return MyNet((12, 7, 5, 3), "tanh", "identity").double()


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3)).double()


def train_with_torch(model, label_smoothing=0.0, class_weights=None, **hyperparameters):
    """Train as PyTorch's documentation shows it; returns the outputs of the last epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **hyperparameters)
    for order in ORDERS:
        outputs = []
        for start, lr in zip(range(0, N, BATCH_SIZE), RATES, strict=True):
            batch = order[start : start + BATCH_SIZE]
            optimizer.param_groups[0]["lr"] = lr
            optimizer.zero_grad()
            y_pred = model(X[batch])
            losses = cross_entropy(y_pred, Y[batch], class_weights, label_smoothing=label_smoothing, reduction="none")
            losses.mean().backward()
            optimizer.step()
            outputs.append(y_pred.detach())
    return torch.cat(outputs)


def train(descent, orders=ORDERS):
    """Train for an epoch in each order; returns the outputs of the last epoch."""
    return [descent.epoch(order, RATES) for order in orders][-1]


def assert_close(a, b):
    torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=1e-12, atol=1e-12)


@EACH_METHOD
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("class_weights", [None, torch.tensor([0.2, 1.0, 3.0]).double()], ids=["equal", "weighted"])
@pytest.mark.parametrize("name", VARIANTS)
def test_training_matches_a_plain_pytorch_loop(set_gradients, label_smoothing, class_weights, name):
    a, b = network(), network()
    settings = VARIANTS[name] | {"label_smoothing": label_smoothing, "class_weights": class_weights}
    descent = GradientDescent(a, X, Y, set_gradients, BATCH_SIZE, **settings)
    outputs = train(descent)
    torch.testing.assert_close(outputs, train_with_torch(b, **settings), rtol=1e-12, atol=1e-12)
    assert not outputs.requires_grad
    assert_close(a, b)


def test_autograd_trains_any_network():
    a, b = convolutional(), convolutional()
    train(GradientDescent(a, X, Y, by_autograd, BATCH_SIZE, momentum=0.9))
    train_with_torch(b, momentum=0.9)
    assert_close(a, b)


def test_frozen_parameters_stay_as_they_are():
    model = convolutional()
    model[0].requires_grad_(requires_grad=False)
    before = [p.clone() for p in model.parameters()]
    GradientDescent(model, X, Y, by_autograd, BATCH_SIZE, momentum=0.9, weight_decay=0.1).epoch(ORDERS[0], RATES)
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value) == (not parameter.requires_grad)


KINDS = {
    "in_place": InPlace,
    "backpropagation": partial(GradientDescent, set_gradients=by_backpropagation),
    "autograd": partial(GradientDescent, set_gradients=by_autograd),
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@EACH_KIND
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_another_descent_continues_from_a_saved_state(kind, momentum):
    straight, resumed = network(), network()
    train(kind(straight, X, Y, batch_size=BATCH_SIZE, momentum=momentum))
    first = kind(resumed, X, Y, batch_size=BATCH_SIZE, momentum=momentum)
    train(first, ORDERS[:1])
    second = kind(resumed, X, Y, batch_size=BATCH_SIZE, momentum=momentum)
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    train(second, ORDERS[1:])
    assert all(torch.equal(p, q) for p, q in zip(straight.parameters(), resumed.parameters(), strict=True))


@EACH_KIND
@pytest.mark.parametrize("n_rates", [3, 5])
def test_another_number_of_rates_than_steps_is_an_error(kind, n_rates):
    with pytest.raises(ValueError, match="zip"):
        kind(network(), X, Y, batch_size=BATCH_SIZE).epoch(ORDERS[0], [0.1] * n_rates)
