import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar2.dataset.augment import augment
from cifar2.inplace import ACTIVATIONS, InPlace
from cifar2.mynet import ACTIVATIONS as REFERENCE
from cifar2.mynet import MyNet, backpropagation, gradients, smoothed
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


def network(activation="relu", dtype=torch.float64, dropout=0.0):
    torch.manual_seed(0)
    return MyNet(N_L, activation, "identity", dropout).to(dtype)


def rates(n, batch_size, lr=0.1):
    """The same rate for each step of an epoch."""
    return [lr] * -(-n // batch_size)


def reference_epoch(model, optimizer, x, targets, order, batch_size, learning_rates, change):
    outputs = []
    for batch, lr in zip(order.split(batch_size), learning_rates, strict=True):
        y_pred = model(change(x[batch]))
        outputs.append(y_pred.detach())
        backpropagation(model, targets[batch], y_pred, "cross_entropy")
        for parameter, gradient in zip(model.parameters(), gradients(model), strict=True):
            parameter.grad = gradient
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    return torch.cat(outputs)


def both(
    x,
    y,
    batch_size,
    activation="relu",
    epochs=3,
    learning_rates=None,
    dropout=0.0,
    label_smoothing=0.0,
    augment=None,
    **hyperparameters,
):
    """Two networks and their outputs in the last epoch, trained in place and by backpropagation and SGD apart."""
    a, b = (network(activation, x.dtype, dropout) for _ in range(2))
    descent, optimizer = (
        InPlace(a, activation, x, y, batch_size, label_smoothing=label_smoothing, augment=augment, **hyperparameters),
        SGD(b.parameters(), lr=0.1, **hyperparameters),
    )
    targets = smoothed(y, N_L[-1], label_smoothing, x.dtype) if label_smoothing else y
    learning_rates = learning_rates or rates(len(y), batch_size)
    generator = torch.Generator().manual_seed(1)
    for epoch in range(epochs):
        order = torch.randperm(len(y), generator=generator)
        torch.manual_seed(epoch)
        in_place = descent.epoch(order, learning_rates)
        torch.manual_seed(epoch)
        apart = reference_epoch(
            b, optimizer, x, targets, order, batch_size, learning_rates, augment or (lambda pictures: pictures)
        )
    return a, b, in_place, apart


def assert_close(a, b, found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


def shaken(pictures):
    """Another picture of each, drawn from the global random state."""
    shaken = augment(pictures.float(), flip=True, shift=1, jitter=0.2, mean=[0.5] * 3, std=[2.0] * 3)
    return shaken.to(pictures.dtype)


@pytest.mark.parametrize("hyperparameters", HYPERPARAMETERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_it_trains_as_backpropagation_and_sgd_do(activation, hyperparameters):
    assert_close(*both(*data(50), batch_size=16, activation=activation, **hyperparameters))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "regularised",
    [
        {"dropout": 0.5},
        {"label_smoothing": 0.2},
        {"augment": shaken},
        {"learning_rates": [0.1, 0.0, 0.02, 0.3]},
        {"dropout": 0.5, "label_smoothing": 0.2, "augment": shaken, "learning_rates": [0.1, 0.05, 0.02, 0.3]},
    ],
    ids=" ".join,
)
def test_with_all_that_training_adds_it_does_too(activation, regularised):
    found = both(*data(50), batch_size=16, activation=activation, **HYPERPARAMETERS[-1], **regularised)
    assert_close(*found)
    a, _, plain, _ = both(*data(50), batch_size=16, activation=activation, **HYPERPARAMETERS[-1])
    assert (plain - found[2]).abs().max() > 1e-3
    assert not torch.equal(a.fc["1"].weight, found[0].fc["1"].weight)


@pytest.mark.parametrize("hyperparameters", HYPERPARAMETERS)
def test_each_step_has_its_own_learning_rate(hyperparameters):
    assert_close(*both(*data(50), batch_size=16, learning_rates=[0.3, 0.2, 0.0, 0.01], **hyperparameters))


@pytest.mark.parametrize("n_rates", [3, 5])
def test_a_rate_too_many_or_too_few_is_an_error(n_rates):
    x, y = data(50)
    with pytest.raises(ValueError, match="zip"):
        InPlace(network(), "relu", x, y, 16).epoch(torch.arange(50), [0.1] * n_rates)


def test_augmented_pictures_are_made_anew_in_every_epoch_and_the_data_stay():
    x, y = data(32)
    before = x.clone()
    seen = []

    def noted(pictures):
        seen.append(shaken(pictures))
        return seen[-1]

    descent = InPlace(network(), "relu", x, y, 32, augment=noted)
    for _ in range(2):
        descent.epoch(torch.arange(32), [0.1])
    assert torch.equal(x, before)
    assert not torch.equal(*seen)


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
    assert_close(a, b, found, wanted)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_derivative_overwrite_their_argument(name):
    z = torch.linspace(-3, 3, 13, dtype=torch.float64)
    a, slope = z.clone(), REFERENCE[name].df(z)
    assert ACTIVATIONS[name].f_(a).data_ptr() == a.data_ptr()
    assert torch.equal(a, REFERENCE[name].f(z))
    assert ACTIVATIONS[name].df_(a).data_ptr() == a.data_ptr()
    torch.testing.assert_close(a, slope)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_no_step_asks_for_memory_of_the_size_of_a_layer(activation, dropout):
    x, y = data(64, torch.float32)
    model = MyNet((12, 4096, 3), activation, "identity", dropout)
    descent = InPlace(model, activation, x, y, 16, momentum=0.9, weight_decay=0.1, label_smoothing=0.1)
    order = torch.arange(64)
    descent.epoch(order, rates(64, 16))
    with torch.profiler.profile(profile_memory=True) as profile:
        descent.epoch(order, rates(64, 16))
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 <= largest < 4096 * 4


def test_a_batch_size_far_above_the_data_is_all_of_it():
    a, b, found, wanted = both(*data(20), batch_size=10**9)
    assert_close(a, b, found, wanted)


def test_the_model_is_what_is_trained():
    x, y = data(50)
    model = network()
    before = model.fc["1"].weight.clone()
    InPlace(model, "relu", x, y, 16).epoch(torch.arange(50), rates(50, 16))
    assert not torch.equal(model.fc["1"].weight, before)
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in model.parameters())


def test_a_velocity_from_bfloat16_products_is_float32s_to_their_rounding():
    x, y = data(64, torch.float32)
    velocities = []
    for dtype in (torch.float32, torch.bfloat16):
        descent = InPlace(network(dtype=torch.float32), "relu", x, y, 16, momentum=0.9, dtype=dtype)
        descent.epoch(torch.arange(64), rates(64, 16))
        velocities.append(descent.v)
    exact, rounded = velocities
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).abs().max() < 4 * 2**-8 * exact.abs().max()


def test_bfloat16_products_train_float32_weights():
    x, _ = data(256, torch.float32)
    y = (x.flatten(1)[:, :3]).argmax(1)
    model = network(dtype=torch.float32)
    descent = InPlace(model, "relu", x, y, 32, momentum=0.9, weight_decay=1e-3, dtype=torch.bfloat16)
    for epoch in range(20):
        outputs = descent.epoch(torch.randperm(256, generator=torch.Generator().manual_seed(epoch)), rates(256, 32))
    assert outputs.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert (model(x).argmax(1) == y).float().mean() > 0.9


def test_bfloat16_products_go_with_dropout_label_smoothing_and_augmentation():
    x, y = data(64, torch.float32)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model = network(dtype=torch.float32, dropout=0.4)
        descent = InPlace(model, "relu", x, y, 16, label_smoothing=0.1, augment=shaken, dtype=dtype)
        torch.manual_seed(5)
        descent.epoch(torch.arange(64), rates(64, 16))
        found.append(descent.p)
    exact, rounded = found
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).abs().max() < 4 * 2**-8 * exact.abs().max()


@given(
    activation=st.sampled_from(list(ACTIVATIONS)),
    n=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    momentum=st.sampled_from([0.0, 0.9]) | st.floats(0, 0.99),
    weight_decay=st.just(0.0) | st.floats(0, 0.5),
    nesterov=st.booleans(),
    lr=st.floats(0, 0.2),
    dropout=st.just(0.0) | st.floats(0, 0.9),
    label_smoothing=st.just(0.0) | st.floats(0, 0.9),
)
def test_whatever_the_hyperparameters_it_trains_as_backpropagation_and_sgd_do(
    activation, n, batch_size, momentum, weight_decay, nesterov, lr, dropout, label_smoothing
):
    falling = [lr / (1 + step) for step in range(len(rates(n, batch_size)))]
    found = both(
        *data(n),
        batch_size,
        activation,
        epochs=2,
        learning_rates=falling,
        dropout=dropout,
        label_smoothing=label_smoothing,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=nesterov and momentum > 0,
    )
    assert_close(*found)
