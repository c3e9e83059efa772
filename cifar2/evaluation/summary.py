"""The validation results of a configuration."""

import math
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, Self

import torch
from torch import Tensor

from cifar2 import files
from cifar2.evaluation.uncertainty import standard_error


class Results(NamedTuple):
    """The results of the runs of a configuration, one per seed, on N validation images.

    Attributes:
        correct: whether the predicted class is the label, bool, seeds x N.
        losses: cross-entropy, float32, seeds x N.
        loss_std: the standard deviation of the validation loss over the last epochs, float64, seeds.
        train_accuracy: the fraction of correct predictions on the training images, float64, seeds.
    """

    correct: Tensor
    losses: Tensor
    loss_std: Tensor
    train_accuracy: Tensor

    def sample(self, seeds: Tensor, images: Tensor) -> Self:
        """The results of the chosen seeds on the chosen images, both given as indices, which may repeat."""
        return self._replace(
            correct=self.correct[seeds][:, images],
            losses=self.losses[seeds][:, images],
            loss_std=self.loss_std[seeds],
            train_accuracy=self.train_accuracy[seeds],
        )


class Summary(NamedTuple):
    """The results of a configuration on validation, from the final weights of its runs.

    Attributes:
        val_accuracy, val_loss, train_accuracy: means over the seeds.
        val_accuracy_se, val_loss_se: standard errors of these means over seeds and images (see ``uncertainty``).
        val_loss_std: per seed, the standard deviation of the validation loss over the last epochs.
        gap: training minus validation accuracy.
        kept_epoch: per seed, the epoch of the weights: the last one, or with early stopping the best one.
    """

    val_accuracy: float
    val_accuracy_se: float
    val_loss: float
    val_loss_se: float
    val_loss_std: list[float]
    train_accuracy: float
    gap: float
    kept_epoch: list[int]


def summarise(results: Results, kept_epoch: list[int]) -> Summary:
    """The summary of ``results``; ``kept_epoch`` as in it."""
    val_accuracy = fmean(results.correct.double().mean(1).tolist())
    train_accuracy = fmean(results.train_accuracy.tolist())
    return Summary(
        val_accuracy=val_accuracy,
        val_accuracy_se=standard_error(results.correct),
        val_loss=mean_loss(results.losses),
        val_loss_se=standard_error(results.losses),
        val_loss_std=results.loss_std.tolist(),
        train_accuracy=train_accuracy,
        gap=train_accuracy - val_accuracy,
        kept_epoch=kept_epoch,
    )


def gap_error(results: Results) -> float:
    """The standard error of the gap over seeds and validation images; all training images were measured."""
    return standard_error(results.train_accuracy[:, None] - results.correct.double())


def mean_loss(losses: Tensor) -> float:
    """The mean of ``losses``, seeds x N.  Each sum is exact before it is rounded once, on any number of threads."""
    return fmean(math.fsum(of_seed) / len(of_seed) for of_seed in losses.tolist())


def save(path: Path, results: Results) -> None:
    """Write ``results`` as safetensors."""
    files.write_tensors(path, results._asdict(), {})


def load(path: Path) -> Results:
    """Read a file written by :func:`save`.

    Raises:
        UserError: the file is missing or corrupted.
    """
    tensors, _ = files.read_tensors(path)
    try:
        return Results(**tensors)
    except TypeError as error:
        raise files.corrupted(path, error) from error


def nothing() -> Results:
    """The results of a configuration that diverged."""
    return Results(torch.ones(0, 0).bool(), torch.ones(0, 0), torch.ones(0).double(), torch.ones(0).double())
