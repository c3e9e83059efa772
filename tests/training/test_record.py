import csv
from statistics import pstdev

import pytest
import torch

from cifar2.dataset.examples import Examples
from cifar2.evaluation.scores import score
from cifar2.training.record import Epoch, Resumed, best_epoch, kept_epoch, results, write_curves
from tests.training.conftest import CONFIGURATION, build, but, fit


def curve(*val_losses):
    return [Epoch(0, i, 0.5, 0.75, loss, 0.6) for i, loss in enumerate(val_losses, 1)]


@pytest.mark.parametrize(("losses", "best"), [((0.5, 0.3, 0.4, 0.3), 2), ((None, None), 1), ((), 0)])
def test_best_epoch_is_the_first_of_the_lowest_loss(losses, best):
    assert best_epoch(curve(*losses)) == best


def test_kept_epoch_is_the_best_only_with_early_stopping():
    assert kept_epoch(curve(0.5, 0.3, 0.4), CONFIGURATION) == 3
    assert kept_epoch(curve(0.5, 0.3, 0.4), but(early_stopping=1)) == 2


def test_epoch_from_a_checkpoint_is_resumed():
    (epoch,) = curve(0.5)
    assert (epoch.resumed, Resumed(*epoch).resumed) == (False, True)
    assert Resumed(*epoch) == epoch


def test_results_are_of_all_seeds(train, val):
    networks, curves = zip(*(fit(train, val, seed=seed, epochs=12) for seed in (0, 1)), strict=True)
    found = results(curves, networks, train, val, CONFIGURATION)
    scores = [score(network, val) for network in networks]
    assert torch.equal(found.correct, torch.stack([s.correct for s in scores]))
    assert torch.equal(found.losses, torch.stack([s.losses for s in scores]))
    assert found.train_accuracy.tolist() == [score(network, train).accuracy for network in networks]
    spreads = [torch.tensor([e.val_loss for e in curve[-4:]]).double().std(correction=0) for curve in curves]
    assert found.loss_std.tolist() == pytest.approx([spread.item() for spread in spreads])


@pytest.mark.parametrize(("n_epochs", "n_last"), [(1, 1), (2, 1), (3, 1), (4, 2), (30, 10), (31, 11)])
def test_steadiness_is_over_the_last_third_of_the_epochs(train, val, n_epochs, n_last):
    losses = [float(i * i) for i in range(n_epochs)]
    found = results([curve(*losses)], [build()], train, val, CONFIGURATION)
    assert found.loss_std.tolist() == pytest.approx([pstdev(losses[-n_last:])])


def test_results_are_of_the_kept_weights(train, val):
    # A learning rate so high that the loss soon rises.
    configuration = but(early_stopping=1, lr=0.5, epochs=30)
    network, epochs = fit(train, val, configuration, 0)
    assert len(epochs) < 30
    found = results([epochs], [network], train, val, configuration)
    assert found.losses.mean().item() == pytest.approx(min(e.val_loss for e in epochs))


@pytest.mark.parametrize("flip_average", [False, True])
def test_results_average_over_mirror_images_as_configured(flip_average):
    generator = torch.Generator().manual_seed(0)
    train, val = (
        Examples(
            torch.randn(200, 3, 32, 32, generator=generator), torch.randint(2, (200,), generator=generator), [], []
        )
        for _ in range(2)
    )
    network = build()
    found = results([curve(0.5)], [network], train, val, but(flip_average=flip_average))
    averaged, other = (score(network, val, average).losses for average in (flip_average, not flip_average))
    assert torch.equal(found.losses[0], averaged)
    assert not torch.equal(averaged, other)
    assert found.train_accuracy.item() == score(network, train, flip_average).accuracy
    assert found.train_accuracy.item() != score(network, train, not flip_average).accuracy


def test_curves_are_written_with_their_configuration(tmp_path):
    curves = [curve(0.1, None), [Resumed(1, 1, 0.5, 0.75, 0.3, 0.6)]]
    write_curves(tmp_path / "c.csv", "fine", curves)
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["configuration"] for row in rows] == ["fine"] * 3
    assert [(row["seed"], row["epoch"]) for row in rows] == [("0", "1"), ("0", "2"), ("1", "1")]
    assert [row["val_loss"] for row in rows] == ["0.1", "", "0.3"]
