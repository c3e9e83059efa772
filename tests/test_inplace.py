import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar2 import inplace
from cifar2.dataset.augment import augment
from cifar2.descent import GradientDescent, by_backpropagation
from cifar2.inplace import IN_PLACE, InPlace
from cifar2.mynet import MyNet
from cifar2.sgdcheck import VARIANTS

# PyTorch warns if a buffer has to be resized.
pytestmark = pytest.mark.filterwarnings("error")

N_L = (12, 7, 5, 3)
NESTEROV = VARIANTS["nesterov and weight decay"]


def data(n, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, 2, 2, generator=generator, dtype=dtype), torch.randint(3, (n,), generator=generator)


def network(activation="relu", dtype=torch.float64, dropout=0.0):
    torch.manual_seed(0)
    return MyNet(N_L, activation, "identity", dropout).to(dtype)


def rates(n, batch_size, lr=0.1):
    """The same rate for each step of an epoch."""
    return [lr] * -(-n // batch_size)


def both(x, y, batch_size, activation="relu", epochs=3, learning_rates=None, dropout=0.0, **settings):
    """Two networks and their outputs in the last epoch, trained in place and by backpropagation and SGD."""
    a, b = (network(activation, x.dtype, dropout) for _ in range(2))
    descents = (
        InPlace(a, x, y, batch_size, **settings),
        GradientDescent(b, x, y, by_backpropagation, batch_size, **settings),
    )
    generator = torch.Generator().manual_seed(1)
    for epoch in range(epochs):
        order = torch.randperm(len(y), generator=generator)
        outputs = []
        for descent in descents:
            torch.manual_seed(epoch)
            outputs.append(descent.epoch(order, learning_rates or rates(len(y), batch_size)))
    return a, b, *outputs


def assert_close(a, b, outputs, expected):
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


def augmented(images):
    """Images changed at random, with the global random state."""
    changed = augment(images.float(), flip=True, shift=1, jitter=0.2, mean=[0.5] * 3, std=[2.0] * 3)
    return changed.to(images.dtype)


@pytest.mark.parametrize("activation", IN_PLACE)
@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.5},
        {"label_smoothing": 0.2},
        {"class_weights": torch.tensor([0.2, 1.0, 3.0])},
        {"augment": augmented},
        {"learning_rates": [0.1, 0.0, 0.02, 0.3]},
        {"dropout": 0.5, "label_smoothing": 0.2, "augment": augmented, "learning_rates": [0.1, 0.05, 0.02, 0.3]},
    ],
    ids=" ".join,
)
def test_regularised_training_matches_backpropagation_and_sgd(activation, changes):
    results = both(*data(50), batch_size=16, activation=activation, **NESTEROV, **changes)
    assert_close(*results)
    plain, _, outputs, _ = both(*data(50), batch_size=16, activation=activation, **NESTEROV)
    assert (outputs - results[2]).abs().max() > 1e-3
    assert not torch.equal(plain.fc["1"].weight, results[0].fc["1"].weight)


@given(
    activation=st.sampled_from(list(IN_PLACE)),
    n=st.integers(1, 40),
    batch_size=st.integers(1, 50) | st.just(10**9),
    momentum=st.sampled_from([0.0, 0.9]) | st.floats(0, 0.99),
    weight_decay=st.just(0.0) | st.floats(0, 0.5),
    nesterov=st.booleans(),
    lr=st.floats(0, 0.2),
    dropout=st.just(0.0) | st.floats(0, 0.9),
    label_smoothing=st.just(0.0) | st.floats(0, 0.9),
    class_weights=st.none() | st.just(torch.tensor([0.2, 1.0, 3.0])),
)
def test_any_training_matches_backpropagation_and_sgd(
    activation, n, batch_size, momentum, weight_decay, nesterov, lr, dropout, label_smoothing, class_weights
):
    results = both(
        *data(n),
        batch_size,
        activation,
        epochs=2,
        learning_rates=[lr / (1 + step) for step in range(len(rates(n, batch_size)))],
        dropout=dropout,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=nesterov and momentum > 0,
    )
    assert_close(*results)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_network_with_another_output_than_linear_is_refused(activation):
    with pytest.raises(ValueError, match=f"^the output activation is {activation}, and must be identity$"):
        InPlace(MyNet(N_L, "relu", activation), *data(50, torch.float32), 16)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, NESTEROV], ids=["plain", "momentum", "nesterov"])
def test_update_in_pieces_is_bit_identical(monkeypatch, settings):
    x, y = data(50, torch.float32)
    whole, pieces = (network(dtype=torch.float32) for _ in range(2))
    order, lr = torch.arange(50), rates(50, 16)
    InPlace(whole, x, y, 16, **settings).epoch(order, lr)
    monkeypatch.setattr(inplace, "PIECE", 32)
    descent = InPlace(pieces, x, y, 16, **settings)
    descent.epoch(order, lr)
    assert len(descent.pieces) > 3
    for p, q in zip(whole.parameters(), pieces.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("activation", IN_PLACE)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_steps_allocate_no_memory_of_the_size_of_a_layer(activation, dropout):
    x, y = data(64, torch.float32)
    model = MyNet((12, 4096, 3), activation, "identity", dropout)
    descent = InPlace(model, x, y, 16, momentum=0.9, weight_decay=0.1, label_smoothing=0.1)
    order = torch.arange(64)
    descent.epoch(order, rates(64, 16))
    with torch.profiler.profile(profile_memory=True) as profile:
        descent.epoch(order, rates(64, 16))
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 <= largest < 4096 * 4


def test_trained_network_keeps_parameters_that_autograd_can_use():
    model = network()
    before = model.fc["1"].weight.clone()
    InPlace(model, *data(50), 16).epoch(torch.arange(50), rates(50, 16))
    assert not torch.equal(model.fc["1"].weight, before)
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("dropout", "settings", "vector"),
    [(0.0, {"momentum": 0.9}, "v"), (0.4, {"label_smoothing": 0.1, "augment": augmented}, "p")],
)
def test_bfloat16_products_match_float32_to_their_rounding(dropout, settings, vector):
    vectors = []
    for dtype in (torch.float32, torch.bfloat16):
        model = network(dtype=torch.float32, dropout=dropout)
        descent = InPlace(model, *data(64, torch.float32), 16, **settings, dtype=dtype)
        torch.manual_seed(5)
        descent.epoch(torch.arange(64), rates(64, 16))
        vectors.append(getattr(descent, vector))
    exact, rounded = vectors
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert (rounded - exact).abs().max() < 4 * 2**-8 * exact.abs().max()


def test_bfloat16_products_train_float32_weights():
    x, _ = data(256, torch.float32)
    y = (x.flatten(1)[:, :3]).argmax(1)
    model = network(dtype=torch.float32)
    descent = InPlace(model, x, y, 32, momentum=0.9, weight_decay=1e-3, dtype=torch.bfloat16)
    for epoch in range(20):
        outputs = descent.epoch(torch.randperm(256, generator=torch.Generator().manual_seed(epoch)), rates(256, 32))
    assert outputs.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert (model(x).argmax(1) == y).float().mean() > 0.9
