import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cifar2.sgd import SGD


def parameters():
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in ((5, 4), (5,), (3, 5))]


def set_gradients(params, step):
    generator = torch.Generator().manual_seed(step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


def assert_equal(ours, theirs, message=None):
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True)), message


@given(
    shapes=st.lists(st.lists(st.integers(1, 4), max_size=4), min_size=1, max_size=5),
    rates=st.lists(st.floats(0, 2), min_size=1, max_size=8),
    momentum=st.sampled_from([0.0, 0.9, 1.0]) | st.floats(0, 1),
    weight_decay=st.sampled_from([0.0, 0.01]) | st.floats(0, 1),
    nesterov=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    foreach=st.booleans(),
    without_gradient=st.sets(st.tuples(st.integers(0, 7), st.integers(0, 4))),
    seed=st.integers(0, 2**32 - 1),
)
def test_parameters_are_bit_identical_to_torchs_at_every_step(
    shapes, rates, momentum, weight_decay, nesterov, dtype, foreach, without_gradient, seed
):
    hyperparameters = {"momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov and momentum > 0}
    generator = torch.Generator().manual_seed(seed)
    ours = [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    a = SGD(ours, lr=0.1, **hyperparameters)
    b = torch.optim.SGD(theirs, lr=0.1, foreach=foreach, **hyperparameters)
    for step, lr in enumerate(rates):
        a.param_groups[0]["lr"] = b.param_groups[0]["lr"] = lr
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(p.shape, generator=generator, dtype=dtype)
            p.grad, q.grad = (None, None) if (step, i) in without_gradient else (gradient, gradient.clone())
        a.step()
        b.step()
        assert_equal(ours, theirs, f"step {step}")


@pytest.mark.parametrize(("momentum", "with_gradients"), [(0.0, True), (0.9, False)])
def test_velocities_exist_only_with_momentum_and_gradients(momentum, with_gradients):
    params = parameters()
    optimizer = SGD(params, lr=0.1, momentum=momentum)
    if with_gradients:
        set_gradients(params, 0)
    optimizer.step()
    assert not optimizer.state


def test_groups_have_their_own_hyperparameters():
    ours, theirs = parameters(), parameters()
    for params, kind in ((ours, SGD), (theirs, torch.optim.SGD)):
        optimizer = kind([{"params": params[:1], "lr": 0.5}, {"params": params[1:], "momentum": 0.9}], lr=0.1)
        for step in range(3):
            set_gradients(params, step)
            optimizer.step()
    assert_equal(ours, theirs)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_gradients_stay_as_they_are(weight_decay):
    params = parameters()
    optimizer = SGD(params, lr=0.1, momentum=0.9, weight_decay=weight_decay, nesterov=True)
    set_gradients(params, 0)
    before = [p.grad.clone() for p in params]
    for _ in range(3):
        optimizer.step()
        assert_equal([p.grad for p in params], before)


@pytest.mark.parametrize("kind", [SGD, torch.optim.SGD])
def test_state_dict_continues_the_run_here_and_in_torchs_sgd(kind):
    straight, resumed = parameters(), parameters()
    a, b = (SGD(params, lr=0.1, momentum=0.9) for params in (straight, resumed))
    for step in range(4):
        for params, optimizer in ((straight, a), (resumed, b)):
            set_gradients(params, step)
            optimizer.step()
        if step == 1:
            state = b.state_dict()["state"]
            b = kind(resumed, lr=0.1, momentum=0.9)
            b.load_state_dict(b.state_dict() | {"state": state})
    assert_equal(straight, resumed)


@pytest.mark.parametrize(
    "bad",
    [
        {"lr": -1.0},
        {"momentum": -0.1},
        {"weight_decay": -1e-9},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"nesterov": True},
    ],
)
def test_invalid_hyperparameter_is_named(bad):
    with pytest.raises(ValueError, match=rf"^{next(iter(bad))} "):
        SGD(parameters(), **({"lr": 0.1} | bad))
