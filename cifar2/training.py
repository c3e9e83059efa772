"""The training loop: batches out of memory, hand-written gradients, hand-written updates, a record of each epoch."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cifar2 import dataset, files, models
from cifar2.mynet import LOSSES, MyNet, backpropagation, gradients
from cifar2.params import Configuration, Normalise, Train
from cifar2.sgd import SGD

LOSS = "cross_entropy"
# The validation loss counts as steady when it moves little over so many last epochs.
STEADY_EPOCHS = 10


class Examples(NamedTuple):
    """Normalised pictures (float32, N x 3 x 32 x 32) and their labels (int64, N), whole in memory."""

    x: Tensor
    y: Tensor


def examples(split: dataset.Split, normalise: Normalise) -> Examples:
    """A split made ready for a network."""
    return Examples(dataset.normalise(split.images, normalise.mean, normalise.std), split.labels)


class Epoch(NamedTuple):
    """One point of the curves.

    The training numbers are means over the epoch's batches, each taken before the update that it led to; the
    validation numbers belong to the weights at the end of the epoch, and are None without a validation set.
    """

    seed: int
    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None


SUMMARY = ("val_accuracy", "val_accuracy_se", "val_loss", "val_loss_se", "val_loss_std", "train_accuracy", "gap")


class Diverged(Exception):
    """The loss stopped being a finite number; the message names seed, epoch and step."""


class Scores(NamedTuple):
    """How a model does on each of N examples: its loss (float32), and whether it is right (bool)."""

    losses: Tensor
    correct: Tensor

    @property
    def loss(self) -> float:
        """The mean loss."""
        return self.losses.mean(dtype=torch.float64).item()

    @property
    def accuracy(self) -> float:
        """The share of right answers, 0 to 1."""
        return self.correct.double().mean().item()


def score(model: MyNet, examples: Examples) -> Scores:
    """Loss and correctness of each example."""
    outputs = models.logits(model, examples.x)
    losses = torch.nn.functional.cross_entropy(outputs, examples.y, reduction="none")
    return Scores(losses, outputs.argmax(1) == examples.y)


def train(
    model: MyNet,
    data: Examples,
    val: Examples | None,
    configuration: Configuration,
    settings: Train,
    seed: int,
) -> Iterator[Epoch]:
    """Train ``model`` in place, and yield the record of each epoch when it is done.

    Args:
        model: freshly built.
        data: what to learn from; every epoch visits all of it once, in an order drawn from ``seed``.
        val: what to measure after each epoch, if anything.
        configuration: the optimizer's hyperparameters.
        settings: epochs, batch size and the kind of gradients.
        seed: of the order of the batches.

    Raises:
        Diverged: a loss is infinite or not a number.
    """
    optimizer = SGD(model.parameters(), **configuration.model_dump())
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(1, settings.epochs + 1):
        loss_sum, n_correct = 0.0, 0
        batches = torch.split(torch.randperm(len(data.y), generator=generator), settings.batch_size)
        for step, batch in enumerate(batches, 1):
            y = data.y[batch]
            loss, outputs = _step(model, data.x[batch], y, optimizer, settings.gradients == "autograd")
            _check_finite(loss, seed, epoch, step)
            loss_sum += loss * len(batch)
            n_correct += int((outputs.argmax(1) == y).sum())
        scores = score(model, val) if val else None
        if scores:
            _check_finite(scores.loss, seed, epoch, len(batches))
        yield Epoch(
            seed,
            epoch,
            loss_sum / len(data.y),
            n_correct / len(data.y),
            scores.loss if scores else None,
            scores.accuracy if scores else None,
        )


def _step(model: MyNet, x: Tensor, y: Tensor, optimizer: SGD, autograd: bool) -> tuple[float, Tensor]:
    """One update; returns the loss and the outputs before it."""
    if autograd:
        optimizer.zero_grad()
        outputs = model(x)
        loss = LOSSES[LOSS].value(y, outputs)
        loss.backward()  # type: ignore[no-untyped-call]
    else:
        with torch.no_grad():
            outputs = model(x)
            loss = LOSSES[LOSS].value(y, outputs)
        backpropagation(model, y, outputs, LOSS)
        for parameter, gradient in zip(model.parameters(), gradients(model), strict=True):
            parameter.grad = gradient
    optimizer.step()
    return loss.item(), outputs


def _check_finite(loss: float, seed: int, epoch: int, step: int) -> None:
    if not math.isfinite(loss):
        raise Diverged(f"seed {seed}, epoch {epoch}, step {step}: the loss is {loss}")


def standard_error(values: Tensor) -> float:
    """The standard error of the mean of ``values`` (seeds x examples), both seeds and examples being samples.

    The variance of a mean over S seeds and N examples is that over the examples (of the seeds' means) / N, plus that
    over the seeds (of the examples' means) / S.  With one seed the second part is unknown, and left out.
    """
    values = values.double()
    variance = values.mean(0).var().item() / values.shape[1]
    if len(values) > 1:
        variance += values.mean(1).var().item() / len(values)
    return math.sqrt(variance)


def summarise(
    curves: Sequence[Sequence[Epoch]], networks: Sequence[MyNet], train: Examples, val: Examples
) -> dict[str, Any]:
    """The numbers by which a configuration is judged, from its runs: one curve and one trained network a seed.

    All are means over the seeds, of the weights after the last epoch.  ``val_accuracy_se`` and ``val_loss_se`` are
    standard errors (see :func:`standard_error`), ``val_loss_std`` is how much the validation loss still moves: its
    standard deviation over the last ``STEADY_EPOCHS`` epochs; ``gap`` is training minus validation accuracy.
    """
    on_val = [score(network, val) for network in networks]
    val_accuracy = fmean(s.accuracy for s in on_val)
    train_accuracy = fmean(score(network, train).accuracy for network in networks)
    last = [[epoch.val_loss for epoch in curve[-STEADY_EPOCHS:] if epoch.val_loss is not None] for curve in curves]
    return {
        "val_accuracy": val_accuracy,
        "val_accuracy_se": standard_error(torch.stack([s.correct for s in on_val])),
        "val_loss": fmean(s.loss for s in on_val),
        "val_loss_se": standard_error(torch.stack([s.losses for s in on_val])),
        "val_loss_std": fmean(map(pstdev, last)),
        "train_accuracy": train_accuracy,
        "gap": train_accuracy - val_accuracy,
    }


def write_curves(path: Path, configuration: str, curves: Sequence[Sequence[Epoch]]) -> None:
    """Write the curves of a configuration's runs as CSV, one line an epoch."""
    rows = [(configuration, *epoch) for curve in curves for epoch in curve]
    files.write_csv(path, ("configuration", *Epoch._fields), rows)
