import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cifar2.sgd import SGD


def parameters(dtype=torch.float32):
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in ((5, 4), (5,), (3, 5))]


def set_gradients(params, step):
    generator = torch.Generator().manual_seed(step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


HYPERPARAMETERS = [
    {},
    {"weight_decay": 0.01},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 0.01},
    {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    {"momentum": 1.0, "weight_decay": 1.0},
]


@pytest.mark.parametrize("hyperparameters", HYPERPARAMETERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("foreach", [False, True])
def test_every_bit_is_that_of_torchs_sgd_at_every_step(hyperparameters, dtype, foreach):
    ours, theirs = parameters(dtype), parameters(dtype)
    a = SGD(ours, lr=0.1, **hyperparameters)
    b = torch.optim.SGD(theirs, lr=0.1, foreach=foreach, **hyperparameters)
    for step in range(50):
        for params, optimizer in ((ours, a), (theirs, b)):
            set_gradients(params, step)
            optimizer.step()
        assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True)), f"step {step}"


def test_a_parameter_whose_gradient_comes_later_starts_its_own_velocity_then():
    ours, theirs = parameters(), parameters()
    for params, optimizer in (
        (ours, SGD(ours, lr=0.1, momentum=0.9)),
        (theirs, torch.optim.SGD(theirs, lr=0.1, momentum=0.9)),
    ):
        for step in range(4):
            set_gradients(params, step)
            if step < 2:
                params[1].grad = None
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_without_any_gradient_nothing_moves_and_nothing_is_kept():
    params = parameters()
    before = [p.clone() for p in params]
    optimizer = SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1)
    assert optimizer.step() is None
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    assert not optimizer.state


def test_without_momentum_no_velocity_is_kept():
    params = parameters()
    optimizer = SGD(params, lr=0.1)
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
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_the_gradient_itself_is_left_alone():
    params = parameters()
    optimizer = SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
    for step in range(3):
        set_gradients(params, step)
        before = [p.grad.clone() for p in params]
        optimizer.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))


def test_a_schedule_changes_the_learning_rate():
    params = parameters()
    optimizer = SGD(params, lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    set_gradients(params, 0)
    before = params[0].clone()
    optimizer.step()
    schedule.step()
    optimizer.step()
    torch.testing.assert_close(before - params[0], 0.15 * params[0].grad)


def test_its_state_moves_to_torchs_sgd_and_goes_on_there():
    ours, theirs = parameters(), parameters()
    a, b = SGD(ours, lr=0.1, momentum=0.9), torch.optim.SGD(theirs, lr=0.1, momentum=0.9)
    for step in range(3):
        set_gradients(ours, step)
        a.step()
    b.state = {
        q: a.state[p] | {"momentum_buffer": a.state[p]["momentum_buffer"].clone()}
        for p, q in zip(ours, theirs, strict=True)
    }
    with torch.no_grad():
        for p, q in zip(ours, theirs, strict=True):
            q.copy_(p)
    for params, optimizer in ((ours, a), (theirs, b)):
        set_gradients(params, 3)
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_its_state_comes_back_from_a_state_dict():
    straight, resumed = parameters(), parameters()
    a, b = SGD(straight, lr=0.1, momentum=0.9), SGD(resumed, lr=0.1, momentum=0.9)
    for step in range(4):
        for params, optimizer in ((straight, a), (resumed, b)):
            set_gradients(params, step)
            optimizer.step()
        if step == 1:
            state = b.state_dict()
            b = SGD(resumed, lr=0.1, momentum=0.9)
            b.load_state_dict(state)
    assert all(torch.equal(p, q) for p, q in zip(straight, resumed, strict=True))


def test_a_closure_is_called_with_gradients_on_and_its_loss_returned():
    (p,) = params = [nn.Parameter(torch.ones(2))]
    optimizer = SGD(params, lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 2.0
    assert torch.equal(p, torch.zeros(2))


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
def test_a_bad_hyperparameter_is_an_error_that_names_it(bad):
    with pytest.raises(ValueError, match=rf"^{next(iter(bad))} "):
        SGD(parameters(), **({"lr": 0.1} | bad))


@given(
    shapes=st.lists(st.lists(st.integers(1, 4), max_size=4), min_size=1, max_size=5),
    rates=st.lists(st.floats(0, 2), min_size=1, max_size=8),
    momentum=st.sampled_from([0.0, 0.9, 0.99]) | st.floats(0, 1, exclude_max=True),
    weight_decay=st.sampled_from([0.0, 0.01]) | st.floats(0, 1),
    nesterov=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    without_gradient=st.sets(st.tuples(st.integers(0, 7), st.integers(0, 4))),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_the_hyperparameters_the_schedule_and_the_shapes_every_bit_is_that_of_torchs_sgd(
    shapes, rates, momentum, weight_decay, nesterov, dtype, without_gradient, seed
):
    hyperparameters = {"momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov and momentum > 0}
    generator = torch.Generator().manual_seed(seed)
    ours = [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    a, b = SGD(ours, lr=0.1, **hyperparameters), torch.optim.SGD(theirs, lr=0.1, foreach=False, **hyperparameters)
    for step, lr in enumerate(rates):
        a.param_groups[0]["lr"] = b.param_groups[0]["lr"] = lr
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(p.shape, generator=generator, dtype=dtype)
            p.grad, q.grad = (None, None) if (step, i) in without_gradient else (gradient, gradient.clone())
        a.step()
        b.step()
        assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True)), f"step {step}"
