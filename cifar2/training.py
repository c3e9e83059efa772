"""The training loop: epochs in an order drawn from the seed, and a record of each."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cifar2 import dataset, files, hardware, models
from cifar2.inplace import InPlace
from cifar2.mynet import LOSSES, MyNet
from cifar2.params import Configuration, Normalise, Train
from cifar2.sgd import SGD

LOSS = "cross_entropy"
# The validation loss counts as steady when it moves little over so many last epochs.
STEADY_EPOCHS = 10


# One pass over the data in this order of its N examples, training on the way; returns the outputs, N x classes, each
# from before the update that it led to.
Descent = Callable[[Tensor], Tensor]
CPU = torch.device("cpu")


class Examples(NamedTuple):
    """Normalised pictures (float32, N x 3 x 32 x 32) and their labels (int64, N), whole in memory, on one device."""

    x: Tensor
    y: Tensor


def examples(split: dataset.Split, normalise: Normalise, device: torch.device = CPU) -> Examples:
    """A split made ready for a network on ``device``."""
    x = dataset.normalise(split.images.to(device), normalise.mean, normalise.std)
    return Examples(x, split.labels.to(device))


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
    """How a model does on each of N examples: its loss (float32), and whether it is right (bool); on the CPU."""

    losses: Tensor
    correct: Tensor

    @property
    def loss(self) -> float:
        """The mean loss, the same whatever the number of threads: the sum is exact before it is rounded once."""
        return math.fsum(self.losses.tolist()) / len(self.losses)

    @property
    def accuracy(self) -> float:
        """The share of right answers, 0 to 1."""
        return self.correct.double().mean().item()


def score(model: MyNet, examples: Examples) -> Scores:
    """Loss and correctness of each example."""
    return _scores(models.logits(model, examples.x), examples.y)


def _scores(outputs: Tensor, y: Tensor) -> Scores:
    losses = torch.nn.functional.cross_entropy(outputs.float(), y, reduction="none")
    return Scores(losses.cpu(), (outputs.argmax(1) == y).cpu())


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
        model: freshly built, on the device of ``data``.
        data: what to learn from; every epoch visits all of it once, in an order drawn from ``seed``.
        val: what to measure after each epoch, if anything.
        configuration: the optimizer's hyperparameters.
        settings: epochs, batch size, precision and the kind of gradients.
        seed: of the order of the batches.

    Raises:
        Diverged: a loss is infinite or not a number; found at the end of an epoch.
    """
    by_autograd = settings.gradients == "autograd"
    descent = (_by_autograd if by_autograd else _by_hand)(model, data, configuration, settings)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(1, settings.epochs + 1):
        order = torch.randperm(len(data.y), generator=generator).to(data.y.device)
        on_train = _scores(descent(order), data.y[order])
        if not math.isfinite(on_train.loss):
            step = 1 + int(on_train.losses.isfinite().logical_not().nonzero()[0]) // settings.batch_size
            raise Diverged(f"seed {seed}, epoch {epoch}, step {step}: the loss is not finite")
        on_val = score(model, val) if val else None
        if on_val and not math.isfinite(on_val.loss):
            raise Diverged(f"seed {seed}, epoch {epoch}: the validation loss is not finite")
        yield Epoch(
            seed,
            epoch,
            on_train.loss,
            on_train.accuracy,
            on_val.loss if on_val else None,
            on_val.accuracy if on_val else None,
        )


def _by_hand(model: MyNet, data: Examples, configuration: Configuration, settings: Train) -> Descent:
    return InPlace(
        model,
        settings.activation,
        data.x,
        data.y,
        settings.batch_size,
        **configuration.model_dump(),
        dtype=hardware.product_dtype(settings.precision, data.x.device),
    ).epoch


def _by_autograd(model: MyNet, data: Examples, configuration: Configuration, settings: Train) -> Descent:
    optimizer = SGD(model.parameters(), **configuration.model_dump())

    def epoch(order: Tensor) -> Tensor:
        outputs = []
        for batch in torch.split(order, settings.batch_size):
            outputs.append(model(data.x[batch]))
            optimizer.zero_grad()
            LOSSES[LOSS].value(data.y[batch], outputs[-1]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return torch.cat(outputs).detach()

    return epoch


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
