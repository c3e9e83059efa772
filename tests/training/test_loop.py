import itertools
import math
import time

import pytest
import torch
from torch.nn.functional import cross_entropy

from cifar2.evaluation.scores import Scores, score
from cifar2.training import loop, schedule
from cifar2.training.checkpoint import Checkpoint
from cifar2.training.record import kept_epoch
from tests.training.conftest import (
    CONFIGURATION,
    CONVOLUTIONAL,
    EACH_METHOD,
    EACH_MODEL,
    HYPERPARAMETERS,
    SETTINGS,
    build,
    but,
    fit,
)

AUGMENTATION = {"flip": True, "shift": 2, "jitter": 0.1}


def assert_equal(a, b):
    """Two networks are bit-identical, statistics of batch normalisation included."""
    assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_each_epoch_has_a_record(train, val):
    network, curve = fit(train, val, seed=4)
    assert [(e.seed, e.epoch) for e in curve] == [(4, 1), (4, 2), (4, 3)]
    scores = score(network, val)
    assert (curve[-1].val_loss, curve[-1].val_accuracy) == (scores.loss, scores.accuracy)


def test_validation_is_optional_and_changes_no_weight(train, val):
    (a, _), (b, curve) = fit(train, val), fit(train, None)
    assert_equal(a, b)
    assert all(e.val_loss is None and e.val_accuracy is None for e in curve)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nesterov": True},
        {"schedule": "one_cycle"},
        {"label_smoothing": 0.2},
        {"class_weights": "balanced"},
        {"dropout": 0.3},
        {"flip": True},
        {"shift": 3},
        {"jitter": 0.2},
        {"nesterov": True, "schedule": "cosine", "label_smoothing": 0.1, "dropout": 0.2, **AUGMENTATION},
    ],
    ids=" ".join,
)
def test_methods_agree_to_rounding_and_use_each_setting(train, val, changes):
    results = [
        fit(train, val, but(**changes), gradients=gradients)
        for gradients in ("in_place", "backpropagation", "autograd")
    ]
    (network, curve), *others = results
    for other, other_curve in others:
        torch.testing.assert_close(network.state_dict(), other.state_dict(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(torch.tensor(curve), torch.tensor(other_curve), rtol=1e-4, atol=1e-6)
    plain, _ = fit(train, None)
    assert torch.equal(plain.fc["1"].weight, network.fc["1"].weight) == (not changes)


@pytest.mark.parametrize(
    ("model", "gradients", "method"),
    [
        (CONFIGURATION, "in_place", "InPlace"),
        (CONFIGURATION, "backpropagation", "by_backpropagation"),
        (CONFIGURATION, "autograd", "by_autograd"),
        (CONVOLUTIONAL, "in_place", "by_autograd"),
        (CONVOLUTIONAL, "backpropagation", "by_autograd"),
    ],
)
def test_gradients_are_computed_by_the_method_of_params(train, monkeypatch, model, gradients, method):
    used = set()

    def recorded(name, function):
        return lambda *arguments, **options: used.add(name) or function(*arguments, **options)

    for name in ("InPlace", "by_backpropagation", "by_autograd"):
        monkeypatch.setattr(loop, name, recorded(name, getattr(loop, name)))
    fit(train, None, model, gradients=gradients, epochs=1)
    assert used == {method}


def plain_loop(train, configuration, epochs):
    """Train as PyTorch's documentation shows it, with a learning rate for each step."""
    network = build(configuration)
    optimizer = torch.optim.SGD(network.parameters(), **HYPERPARAMETERS)
    rates = schedule.learning_rates(configuration.schedule, configuration.lr, epochs * 5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        losses = []
        order = torch.randperm(70, generator=generator)
        for start in range(0, 70, 16):
            batch = order[start : start + 16]
            optimizer.param_groups[0]["lr"] = rates.pop(0)
            optimizer.zero_grad()
            loss = cross_entropy(network(train.x[batch]), train.y[batch])
            loss.backward()
            optimizer.step()
            losses += [loss.item()] * len(batch)
    return network, losses


@EACH_MODEL
@pytest.mark.parametrize("name", ["constant", "cosine", "one_cycle"])
def test_training_matches_a_plain_pytorch_loop(train, model, name):
    """Every example once an epoch, a smaller last batch, the mean loss, a schedule over the whole run."""
    configuration = but(model, schedule=name)
    network, curve = fit(train, None, configuration, epochs=2)
    other, losses = plain_loop(train, configuration, epochs=2)
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    assert curve[-1].train_loss == pytest.approx(sum(losses) / 70, rel=1e-4)


@EACH_METHOD
def test_own_epochs_and_batch_size_override_the_common_ones(train, val, gradients):
    own, own_curve = fit(train, val, but(epochs=2, batch_size=32), gradients=gradients)
    common, common_curve = fit(train, val, epochs=2, batch_size=32, gradients=gradients)
    assert own_curve == common_curve
    assert_equal(own, common)


@pytest.mark.parametrize(
    "configuration", [but(dropout=0.2, **AUGMENTATION), but(CONVOLUTIONAL, dropout=0.2, flip=True)], ids=["mlp", "cnn"]
)
def test_training_depends_on_the_seed_alone(train, val, configuration):
    results = []
    for state, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        results.append(fit(train, val, configuration, seed))
        assert torch.equal(torch.get_rng_state(), before), "the global random state stays"
    (a, curve_a), (b, curve_b), (c, _) = results
    assert curve_a == curve_b
    assert_equal(a, b)
    assert not torch.equal(next(a.parameters()), next(c.parameters()))


@EACH_MODEL
def test_each_epoch_of_each_seed_augments_in_its_own_way(train, monkeypatch, model):
    drawn = []

    def augment(x, **_):
        drawn.append(torch.rand(()).item())
        return x

    monkeypatch.setattr(loop, "augment", augment)
    for seed in (0, 1):
        fit(train, None, but(model, flip=True), seed)
    assert len(drawn) == 2 * 3 * 5
    assert len(set(drawn)) == len(drawn)


@EACH_METHOD
def test_recorded_training_loss_is_without_label_smoothing(train, gradients):
    """With a learning rate of almost 0, all outputs are those of the new network."""
    _, (epoch,) = fit(train, None, but(lr=1e-12, label_smoothing=0.5), gradients=gradients, epochs=1)
    scores = score(build(), train)
    assert epoch.train_loss == pytest.approx(scores.loss, rel=1e-5)
    assert epoch.train_accuracy == scores.accuracy


def test_flip_average_applies_to_the_recorded_validation(train, val):
    network, curve = fit(train, val, but(flip_average=True, lr=0.001))
    assert curve[-1].val_loss == score(network, val, flip_average=True).loss != score(network, val).loss


@pytest.mark.parametrize(
    ("losses", "patience", "n_epochs", "best"),
    [
        ([5, 4, 6, 3, 3, 3.5, 1, 1], 2, 6, 4),  # an equal loss is not lower; a lower one starts the count again
        ([5, 4, 6, 3, 3, 3.5, 1, 1], 3, 8, 7),
        ([1, 2, 3], 1, 2, 1),
        ([5, 4, 3, 2], 1, 4, 4),
        ([1, 2, 3], None, 3, 3),
    ],
)
@EACH_MODEL
def test_early_stopping_restores_the_weights_of_the_best_epoch(
    train, val, monkeypatch, model, losses, patience, n_epochs, best
):
    scripted = map(float, losses)
    monkeypatch.setattr(loop, "score", lambda *_: Scores(torch.tensor([next(scripted)]), torch.tensor([True])))
    configuration = but(model, early_stopping=patience, epochs=len(losses))
    network = build(configuration)
    curve, weights = [], []
    for epoch in loop.train(network, train, val, configuration, SETTINGS, 0):
        curve.append(epoch)
        weights.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
    assert len(curve) == n_epochs
    assert kept_epoch(curve, configuration) == best
    restored = network.state_dict()
    for i, of_epoch in enumerate(weights, 1):
        assert all(torch.equal(restored[name], of_epoch[name]) for name in restored) == (i == best)


def test_early_stopping_needs_a_validation_set(train):
    assert len(fit(train, None, but(early_stopping=1))[1]) == 3


@EACH_METHOD
def test_infinite_loss_ends_the_run_at_a_named_step(train, val, gradients):
    with pytest.raises(loop.Diverged, match=r"^seed 0, epoch \d, step [2-5]: the loss is not finite$"):
        fit(train, val, but(lr=1e30), gradients=gradients)


def test_nan_validation_loss_ends_the_run(train, val):
    broken = val._replace(x=val.x.clone().fill_(math.nan))
    with pytest.raises(loop.Diverged, match=r"^seed 0, epoch 1: the validation loss is not finite$"):
        fit(train, broken)


RESUMED = {
    "in_place": (CONFIGURATION, {}),
    "backpropagation": (CONFIGURATION, {"gradients": "backpropagation"}),
    "autograd": (CONFIGURATION, {"gradients": "autograd"}),
    "without momentum": (but(momentum=0.0), {"gradients": "autograd"}),
    "everything random": (but(dropout=0.3, nesterov=True, schedule="one_cycle", **AUGMENTATION), {}),
    "convolutions": (but(CONVOLUTIONAL, dropout=0.3, **AUGMENTATION), {}),
    "early stopping": (but(early_stopping=2, lr=0.5, epochs=9), {}),
}


@pytest.mark.parametrize(("case", "every"), [*((case, 1) for case in RESUMED), ("in_place", 2)])
def test_resumed_run_is_bit_identical(train, val, tmp_path, monkeypatch, case, every):
    clock = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))  # once an epoch, and after each checkpoint
    configuration, changes = RESUMED[case]
    settings = SETTINGS.model_copy(update={"epochs": 5} | changes)
    straight, curve = fit(train, val, configuration, **{"epochs": 5} | changes)
    for n in range(1, len(curve) + 1):
        checkpoint = Checkpoint(tmp_path / f"{n}.safetensors", seconds=every - 0.5)

        def run(checkpoint=checkpoint):
            network = build(configuration)
            return network, loop.train(network, train, val, configuration, settings, 0, checkpoint)

        _, epochs = run()
        assert [next(epochs) for _ in range(n)] == curve[:n]
        epochs.close()
        network, epochs = run()
        torch.rand(7)
        resumed = list(epochs)
        assert resumed == curve
        n_saved = n // every * every
        assert [epoch.resumed for epoch in resumed] == [True] * n_saved + [False] * (len(curve) - n_saved)
        assert_equal(network, straight)
        again, epochs = run()
        assert list(epochs) == curve, "a finished run yields its records again"
        assert_equal(again, straight)
