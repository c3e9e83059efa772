import csv
import math

import pytest
import torch

from cifar2 import models, training
from cifar2.params import Configuration, Normalise, Train
from tests.conftest import random_split

CONFIGURATION = Configuration(lr=0.05, momentum=0.9, weight_decay=0.001)
NORMALISE = Normalise(mean=[0.5] * 3, std=[0.5] * 3)
CLASSES = ("airplane", "bird")
# Small enough for float32 rounding not to grow much over the whole run.
SETTINGS = Train(
    hidden=[8, 8],
    activation="tanh",
    epochs=3,
    batch_size=16,
    seeds=[0],
    gradients="backpropagation",
    precision="float32",
    device="cpu",
)


@pytest.fixture(scope="module")
def train():
    return training.examples(random_split(70, 0), NORMALISE)


@pytest.fixture(scope="module")
def val():
    return training.examples(random_split(40, 1), NORMALISE)


def fit(train, val, configuration=CONFIGURATION, seed=0, **changes):
    settings = SETTINGS.model_copy(update=changes)
    network = models.build(models.describe("x", settings, NORMALISE, CLASSES), seed)
    return network, list(training.train(network, train, val, configuration, settings, seed))


def test_training_learns(train, val):
    network, curve = fit(train, val, epochs=10)
    assert curve[-1].train_loss < curve[0].train_loss / 2
    assert training.score(network, val).accuracy > 0.9


def test_there_is_one_record_an_epoch(train, val):
    network, curve = fit(train, val, seed=4)
    assert [(e.seed, e.epoch) for e in curve] == [(4, 1), (4, 2), (4, 3)]
    scores = training.score(network, val)
    assert (curve[-1].val_loss, curve[-1].val_accuracy) == (scores.loss, scores.accuracy)


def test_without_a_validation_set_its_numbers_are_none(train):
    _, curve = fit(train, None)
    assert all(e.val_loss is None and e.val_accuracy is None for e in curve)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(train, val):
    (a, curve_a), (b, curve_b), (c, _) = (fit(train, val, seed=seed) for seed in (0, 0, 1))
    assert curve_a == curve_b
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.fc["1"].weight, c.fc["1"].weight)


def test_measuring_on_a_validation_set_changes_no_weight(train, val):
    (a, _), (b, _) = fit(train, val), fit(train, None)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("nesterov", [False, True])
def test_autograd_gives_the_same_result_to_rounding(train, val, nesterov):
    configuration = CONFIGURATION.model_copy(update={"nesterov": nesterov})
    (a, by_hand), (b, by_autograd) = (
        fit(train, val, configuration, gradients=g) for g in ("backpropagation", "autograd")
    )
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
    for e, f in zip(by_hand, by_autograd, strict=True):
        torch.testing.assert_close(torch.tensor(e), torch.tensor(f), rtol=1e-4, atol=1e-6)


def test_one_epoch_is_the_same_as_a_plain_pytorch_loop(train):
    """Every example once, a last batch that is smaller, the mean loss, torch's own optimizer."""
    network, (epoch,) = fit(train, None, epochs=1)
    other = models.build(models.describe("x", SETTINGS, NORMALISE, CLASSES), 0)
    optimizer = torch.optim.SGD(other.parameters(), **CONFIGURATION.model_dump())
    order = torch.randperm(70, generator=torch.Generator().manual_seed(0))
    losses = []
    for start in range(0, 70, 16):
        batch = order[start : start + 16]
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(other(train.x[batch]), train.y[batch])
        loss.backward()
        optimizer.step()
        losses += [loss.item()] * len(batch)
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert epoch.train_loss == pytest.approx(sum(losses) / 70, rel=1e-6)


@pytest.mark.parametrize("gradients", ["backpropagation", "autograd"])
def test_a_loss_that_is_no_number_stops_the_run_and_says_where(train, val, gradients):
    with pytest.raises(training.Diverged, match=r"^seed 0, epoch \d, step [2-5]: the loss is not finite$"):
        fit(train, val, CONFIGURATION.model_copy(update={"lr": 1e30}), gradients=gradients)


def test_a_validation_loss_that_is_no_number_stops_the_run(train, val):
    broken = training.Examples(val.x.clone().fill_(math.nan), val.y)
    with pytest.raises(training.Diverged, match=r"^seed 0, epoch 1: the validation loss is not finite$"):
        fit(train, broken)


def test_scores_are_torchs(train):
    network, _ = fit(train, None)
    scores = training.score(network, train)
    outputs = models.logits(network, train.x)
    assert scores.loss == pytest.approx(torch.nn.functional.cross_entropy(outputs, train.y).item(), rel=1e-6)
    assert scores.accuracy == (outputs.argmax(1) == train.y).double().mean()


def test_the_standard_error_of_one_seed_is_the_binomial_one():
    correct = torch.tensor([[1] * 75 + [0] * 25])
    assert training.standard_error(correct) == pytest.approx(math.sqrt(0.75 * 0.25 / 99))


def test_the_standard_error_counts_the_seeds_too():
    same = torch.tensor([[1.0, 0.0, 1.0, 0.0]] * 2)
    differ = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert training.standard_error(same) == pytest.approx(math.sqrt((1 / 3) / 4))
    assert training.standard_error(differ) == pytest.approx(math.sqrt(0.5 / 2))


def test_the_standard_error_is_the_spread_of_the_mean():
    """Simulated: seeds and pictures each shift the chance to be right; the mean's spread is what is predicted."""
    generator = torch.Generator().manual_seed(0)
    means, predicted = [], []
    for _ in range(2000):
        seeds = 0.1 * torch.randn(3, 1, generator=generator)
        pictures = 0.3 * torch.randn(1, 50, generator=generator)
        values = seeds + pictures + 0.05 * torch.randn(3, 50, generator=generator)
        means.append(values.mean())
        predicted.append(training.standard_error(values) ** 2)
    assert math.sqrt(sum(predicted) / len(predicted)) == pytest.approx(torch.stack(means).std().item(), rel=0.05)


def test_the_summary_is_over_seeds(train, val):
    runs = [fit(train, val, seed=seed, epochs=12) for seed in (0, 1)]
    summary = training.summarise([curve for _, curve in runs], [network for network, _ in runs], train, val)
    assert tuple(summary) == training.SUMMARY
    last = [curve[-1] for _, curve in runs]
    assert summary["val_accuracy"] == pytest.approx((last[0].val_accuracy + last[1].val_accuracy) / 2)
    assert summary["val_loss"] == pytest.approx((last[0].val_loss + last[1].val_loss) / 2)
    assert summary["gap"] == summary["train_accuracy"] - summary["val_accuracy"]
    moves = [torch.tensor([e.val_loss for e in curve[-10:]]).double().std(correction=0) for _, curve in runs]
    assert summary["val_loss_std"] == pytest.approx(sum(moves).item() / 2)


def test_curves_are_written_with_their_configuration(tmp_path, train):
    _, curve = fit(train, None)
    training.write_curves(tmp_path / "c.csv", "fine", [curve])
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["configuration"] for row in rows] == ["fine"] * 3
    assert float(rows[1]["train_loss"]) == curve[1].train_loss
    assert rows[0]["val_loss"] == ""
