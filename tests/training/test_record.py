import csv

import pytest
import torch

from cifar2.dataset.examples import Examples
from cifar2.evaluation.scores import score
from cifar2.evaluation.uncertainty import standard_error
from cifar2.training.record import Epoch, Resumed, best_epoch, kept_epoch, summarise, write_curves
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


def test_summary_is_over_seeds(train, val):
    networks, curves = zip(*(fit(train, val, seed=seed, epochs=12) for seed in (0, 1)), strict=True)
    summary = summarise(curves, networks, train, val, CONFIGURATION)
    last = [curve[-1] for curve in curves]
    assert summary.val_accuracy == pytest.approx((last[0].val_accuracy + last[1].val_accuracy) / 2)
    assert summary.val_loss == pytest.approx((last[0].val_loss + last[1].val_loss) / 2)
    scores = [score(network, val) for network in networks]
    assert summary.val_accuracy_se == standard_error(torch.stack([s.correct for s in scores]))
    assert summary.val_loss_se == standard_error(torch.stack([s.losses for s in scores]))
    assert summary.gap == summary.train_accuracy - summary.val_accuracy
    assert summary.kept_epoch == [12, 12]
    spreads = [torch.tensor([e.val_loss for e in curve[-10:]]).double().std(correction=0) for curve in curves]
    assert summary.val_loss_std == pytest.approx([spread.item() for spread in spreads])


def test_summary_is_of_the_kept_weights(train, val):
    # A learning rate so high that the loss soon rises.
    configuration = but(early_stopping=1, lr=0.5, epochs=30)
    networks, curves = zip(*(fit(train, val, configuration, seed) for seed in (0, 1)), strict=True)
    assert all(len(curve) < 30 for curve in curves)
    summary = summarise(curves, networks, train, val, configuration)
    best = [min(curve, key=lambda e: e.val_loss) for curve in curves]
    assert summary.val_loss == pytest.approx((best[0].val_loss + best[1].val_loss) / 2)
    assert summary.kept_epoch == [best[0].epoch, best[1].epoch]


@pytest.mark.parametrize("flip_average", [False, True])
def test_summary_averages_over_mirror_images_as_configured(flip_average):
    generator = torch.Generator().manual_seed(0)
    train, val = (
        Examples(
            torch.randn(200, 3, 32, 32, generator=generator), torch.randint(2, (200,), generator=generator), [], []
        )
        for _ in range(2)
    )
    network = build()
    summary = summarise([curve(0.5)], [network], train, val, but(flip_average=flip_average))
    assert summary.val_loss == score(network, val, flip_average).loss != score(network, val, not flip_average).loss
    assert summary.train_accuracy == score(network, train, flip_average).accuracy
    assert summary.train_accuracy != score(network, train, not flip_average).accuracy


def test_curves_are_written_with_their_configuration(tmp_path):
    curves = [curve(0.1, None), [Resumed(1, 1, 0.5, 0.75, 0.3, 0.6)]]
    write_curves(tmp_path / "c.csv", "fine", curves)
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["configuration"] for row in rows] == ["fine"] * 3
    assert [(row["seed"], row["epoch"]) for row in rows] == [("0", "1"), ("0", "2"), ("1", "1")]
    assert [row["val_loss"] for row in rows] == ["0.1", "", "0.3"]
