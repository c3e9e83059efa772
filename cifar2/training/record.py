"""The record of a training run: one row per epoch, and the results of a configuration's runs."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import pstdev
from typing import NamedTuple

import torch
from torch import nn

from cifar2 import files
from cifar2.dataset.examples import Examples
from cifar2.evaluation.scores import score
from cifar2.evaluation.summary import Results
from cifar2.params import Configuration

# The steadiness of the validation loss is its standard deviation over the last third of the epochs, rounded up.  A run
# of up to three epochs has one epoch there, and so no deviation.
LAST = 1 / 3


class Epoch(NamedTuple):
    """One row of the curves.

    The training numbers are means over the examples, whose outputs were computed before the step of their batch.  The
    validation numbers belong to the weights at the end of the epoch; without a validation set they are None.
    """

    seed: int
    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None

    @property
    def resumed(self) -> bool:
        """Whether the epoch was read from a checkpoint of an earlier process."""
        return False


class Resumed(Epoch):
    """An epoch from a checkpoint."""

    @property
    def resumed(self) -> bool:
        """Always true."""
        return True


def best_epoch(curve: Sequence[Epoch]) -> int:
    """The first epoch with the lowest validation loss; 0 for an empty curve."""
    return min(curve, key=lambda epoch: math.inf if epoch.val_loss is None else epoch.val_loss).epoch if curve else 0


def kept_epoch(curve: Sequence[Epoch], configuration: Configuration) -> int:
    """The epoch whose weights a finished run has: the last one, or with early stopping the best one."""
    return best_epoch(curve) if configuration.early_stopping else curve[-1].epoch


def results(
    curves: Sequence[Sequence[Epoch]],
    networks: Sequence[nn.Module],
    train: Examples,
    val: Examples,
    configuration: Configuration,
) -> Results:
    """The results of a configuration's runs, from one curve and one trained network per seed."""
    on_val = [score(network, val, configuration.flip_average) for network in networks]
    on_train = [score(network, train, configuration.flip_average).accuracy for network in networks]
    last = [curve[-math.ceil(LAST * len(curve)) :] for curve in curves]
    deviations = [pstdev(epoch.val_loss for epoch in epochs if epoch.val_loss is not None) for epochs in last]
    return Results(
        torch.stack([s.correct for s in on_val]),
        torch.stack([s.losses for s in on_val]),
        torch.tensor(deviations, dtype=torch.float64),
        torch.tensor(on_train, dtype=torch.float64),
    )


def write_curves(path: Path, configuration: str, curves: Sequence[Sequence[Epoch]]) -> None:
    """Write the curves of a configuration as CSV, one line per epoch."""
    rows = [(configuration, *epoch) for curve in curves for epoch in curve]
    files.write_csv(path, ("configuration", *Epoch._fields), rows)
