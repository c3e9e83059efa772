import pytest
import torch

from cifar2.inplace import ACTIVATIONS, InPlace
from cifar2.mynet import ACTIVATIONS as REFERENCE
from cifar2.mynet import MyNet, backpropagation, gradients
from cifar2.sgd import SGD

N_L = (12, 7, 5, 3)
HYPERPARAMETERS = [
    {},
    {"weight_decay": 0.1},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 0.1},
    {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True},
]


def data(n, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, 2, 2, generator=generator, dtype=dtype), torch.randint(3, (n,), generator=generator)


def network(activation="relu", dtype=torch.float64):
    torch.manual_seed(0)
    return MyNet(N_L, activation, "identity").to(dtype)


def reference_epoch(model, optimizer, x, y, order, batch_size):
    outputs = []
    for batch in order.split(batch_size):
        outputs.append(model(x[batch]).detach())
        backpropagation(model, y[batch], model(x[batch]), "cross_entropy")
        for parameter, gradient in zip(model.parameters(), gradients(model), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return torch.cat(outputs)


def both(x, y, batch_size, activation="relu", epochs=3, **hyperparameters):
    """Two networks and their outputs in the last epoch, trained in place and by backpropagation and SGD apart."""
    a, b = (network(activation, x.dtype) for _ in range(2))
    descent, optimizer = (
        InPlace(a, activation, x, y, batch_size, lr=0.1, **hyperparameters),
        SGD(b.parameters(), lr=0.1, **hyperparameters),
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        order = torch.randperm(len(y), generator=generator)
        outputs = descent.epoch(order), reference_epoch(b, optimizer, x, y, order, batch_size)
    return a, b, *outputs


@pytest.mark.parametrize("hyperparameters", HYPERPARAMETERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_it_trains_as_backpropagation_and_sgd_do(activation, hyperparameters):
    a, b, found, wanted = both(*data(50), batch_size=16, activation=activation, **hyperparameters)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


def test_a_first_step_on_a_power_of_two_of_examples_is_the_same_to_the_bit():
    """There the two do the same arithmetic: a half, a quarter, ... of a sum is exact wherever it is taken."""
    a, b, found, wanted = both(*data(32, torch.float32), batch_size=32, epochs=1, weight_decay=0.1)
    assert torch.equal(found, wanted)
    for l in ("1", "2", "3"):
        assert torch.equal(a.fc[l].weight, b.fc[l].weight)


def test_in_float32_it_stays_within_rounding():
    a, b, _, _ = both(*data(50, torch.float32), batch_size=16, epochs=10, momentum=0.9, weight_decay=0.01)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [7, 16, 17, 32])
def test_every_size_of_the_last_batch_is_trained_on(n):
    a, b, found, wanted = both(*data(n), batch_size=16)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a.fc["1"].weight, b.fc["1"].weight, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_derivative_overwrite_their_argument(name):
    z = torch.linspace(-3, 3, 13, dtype=torch.float64)
    a, slope = z.clone(), REFERENCE[name].df(z)
    assert ACTIVATIONS[name].f_(a).data_ptr() == a.data_ptr()
    assert torch.equal(a, REFERENCE[name].f(z))
    assert ACTIVATIONS[name].df_(a).data_ptr() == a.data_ptr()
    torch.testing.assert_close(a, slope)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_step_asks_for_memory_of_the_size_of_a_layer(activation):
    x, y = data(64, torch.float32)
    model = MyNet((12, 4096, 3), activation, "identity")
    descent = InPlace(model, activation, x, y, 16, lr=0.1, momentum=0.9, weight_decay=0.1)
    order = torch.arange(64)
    descent.epoch(order)
    with torch.profiler.profile(profile_memory=True) as profile:
        descent.epoch(order)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 <= largest < 4096 * 4


def test_a_batch_size_far_above_the_data_is_all_of_it():
    a, b, found, wanted = both(*data(20), batch_size=10**9)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a.fc["1"].weight, b.fc["1"].weight, rtol=1e-12, atol=1e-12)


def test_the_model_is_what_is_trained():
    x, y = data(50)
    model = network()
    before = model.fc["1"].weight.clone()
    InPlace(model, "relu", x, y, 16, lr=0.1).epoch(torch.arange(50))
    assert not torch.equal(model.fc["1"].weight, before)
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in model.parameters())


def test_a_velocity_from_bfloat16_products_is_float32s_to_their_rounding():
    x, y = data(64, torch.float32)
    velocities = []
    for dtype in (torch.float32, torch.bfloat16):
        descent = InPlace(network(dtype=torch.float32), "relu", x, y, 16, lr=0.1, momentum=0.9, dtype=dtype)
        descent.epoch(torch.arange(64))
        velocities.append(descent.v)
    exact, rounded = velocities
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).abs().max() < 4 * 2**-8 * exact.abs().max()


def test_bfloat16_products_train_float32_weights():
    x, _ = data(256, torch.float32)
    y = (x.flatten(1)[:, :3]).argmax(1)
    model = network(dtype=torch.float32)
    descent = InPlace(model, "relu", x, y, 32, 0.1, momentum=0.9, weight_decay=1e-3, dtype=torch.bfloat16)
    for epoch in range(20):
        outputs = descent.epoch(torch.randperm(256, generator=torch.Generator().manual_seed(epoch)))
    assert outputs.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert (model(x).argmax(1) == y).float().mean() > 0.9
