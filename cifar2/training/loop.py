"""The training loop: epochs in an order drawn from the seed, and a record of each."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple, Protocol

import torch
from numpy.random import SeedSequence
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cifar2 import files
from cifar2.dataset import splits
from cifar2.dataset.augment import augment
from cifar2.evaluation.uncertainty import standard_error
from cifar2.inplace import InPlace
from cifar2.mynet import MyNet
from cifar2.networks import classifier
from cifar2.params import Configuration, Train
from cifar2.sgd import SGD
from cifar2.training import hardware
from cifar2.training.checkpoint import Checkpoint
from cifar2.training.schedule import learning_rates

# The validation loss counts as steady when it moves little over so many last epochs.
STEADY_EPOCHS = 10


CPU = torch.device("cpu")


class Descent(Protocol):
    """What trains a network: ``InPlace``, or autograd."""

    def epoch(self, order: Tensor, learning_rates: Sequence[float], /) -> Tensor:
        """Pass over the data once, in this order of its N examples, with one learning rate a step.

        Returns:
            The outputs, N x classes, each from before the update that it led to.
        """

    def state(self) -> dict[str, Tensor]:
        """What a next epoch depends on beside the network."""

    def load_state(self, state: Mapping[str, Tensor], /) -> None:
        """Go on from what :meth:`state` gave."""


class Examples(NamedTuple):
    """What a network learns from or is measured on, whole in memory, on one device.

    Attributes:
        x: float32; normalised pictures, N x 3 x 32 x 32, or features of pictures, N x F.
        y: the labels, int64, N.
        mean, std: of the pictures' normalisation, by channel.
    """

    x: Tensor
    y: Tensor
    mean: Sequence[float]
    std: Sequence[float]


def examples(split: splits.Split, mean: Sequence[float], std: Sequence[float], device: torch.device = CPU) -> Examples:
    """A split made ready for a network on ``device``: its pictures normalised, features as they are."""
    x = split.images.to(device)
    return Examples(x if split.features else splits.normalise(x, mean, std), split.labels.to(device), mean, std)


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

    @property
    def resumed(self) -> bool:
        """Whether it was trained by an earlier process, and read from its checkpoint."""
        return False


class Resumed(Epoch):
    """An epoch from a checkpoint."""

    @property
    def resumed(self) -> bool:
        """Yes."""
        return True


SUMMARY = (
    "val_accuracy",
    "val_accuracy_se",
    "val_loss",
    "val_loss_se",
    "val_loss_std",
    "train_accuracy",
    "gap",
    "kept_epoch",
)


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


def score(model: nn.Module, examples: Examples, flip_average: bool = False) -> Scores:
    """Loss and correctness of each example, with the model in evaluation mode."""
    model.eval()
    return _scores(classifier.logits(model, examples.x, flip_average), examples.y)


def _scores(outputs: Tensor, y: Tensor) -> Scores:
    losses = cross_entropy(outputs.float(), y, reduction="none")
    return Scores(losses.cpu(), (outputs.argmax(1) == y).cpu())


def train(
    model: nn.Module,
    data: Examples,
    val: Examples | None,
    configuration: Configuration,
    settings: Train,
    seed: int,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Epoch]:
    """Train ``model`` in place, and yield the record of each epoch when it is done.

    With early stopping the model gets the weights of its best epoch back after the last record.  After a
    checkpoint the records before it come first, and are marked as resumed.

    Args:
        model: freshly built, on the device of ``data``.
        data: what to learn from; every epoch visits all of it once, in an order drawn from ``seed``.
        val: what to measure after each epoch, if anything; early stopping needs it.
        configuration: how to train.
        settings: likewise, what all configurations share.
        seed: of the order of the batches, and of whatever else is random in an epoch.
        checkpoint: what to go on from, and to leave for a next try.

    Raises:
        UserError: the checkpoint is damaged, or cannot be written.
        Diverged: a loss is infinite or not a number; found at the end of an epoch.
    """
    epochs, batch_size = configuration.epochs or settings.epochs, configuration.batch_size or settings.batch_size
    if isinstance(model, MyNet) and settings.gradients == "backpropagation":
        descent: Descent = _by_hand(model, data, configuration, settings, batch_size)
    else:
        descent = _ByAutograd(model, data, configuration, batch_size)
    steps = math.ceil(len(data.y) / batch_size)
    rates = learning_rates(configuration.schedule, configuration.lr, epochs * steps)
    generator = torch.Generator().manual_seed(seed)
    curve: list[Epoch] = []
    best_weights: dict[str, Tensor] = {}
    saved = checkpoint.load() if checkpoint else None
    if saved:
        tensors, about = saved
        curve = [Resumed(*record) for record in about["curve"]]
        model.load_state_dict(_part(tensors, "model"))
        descent.load_state(_part(tensors, "descent"))
        best_weights = _part(tensors, "best")
        generator.set_state(tensors["generator"])
        yield from curve
    for epoch in range(len(curve) + 1, epochs + 1):
        if configuration.early_stopping and val and epoch - 1 - _best(curve) == configuration.early_stopping:
            break
        order = torch.randperm(len(data.y), generator=generator).to(data.y.device)
        model.train()
        with torch.random.fork_rng():
            # What augmentation and dropout draw is the epoch's own, whatever was drawn before it.
            torch.manual_seed(int(SeedSequence((seed, epoch)).generate_state(1)[0]))
            outputs = descent.epoch(order, rates[(epoch - 1) * steps : epoch * steps])
        on_train = _scores(outputs, data.y[order])
        if not math.isfinite(on_train.loss):
            step = 1 + int(on_train.losses.isfinite().logical_not().nonzero()[0]) // batch_size
            raise Diverged(f"seed {seed}, epoch {epoch}, step {step}: the loss is not finite")
        on_val = score(model, val, configuration.flip_average) if val else None
        if on_val and not math.isfinite(on_val.loss):
            raise Diverged(f"seed {seed}, epoch {epoch}: the validation loss is not finite")
        curve.append(
            Epoch(
                seed,
                epoch,
                on_train.loss,
                on_train.accuracy,
                on_val.loss if on_val else None,
                on_val.accuracy if on_val else None,
            )
        )
        if configuration.early_stopping and on_val and _best(curve) == epoch:
            best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if checkpoint:
            parts = {"model": model.state_dict(), "descent": descent.state(), "best": best_weights}
            tensors = {f"{part}/{name}": tensor for part, of_part in parts.items() for name, tensor in of_part.items()}
            checkpoint.save(epoch, tensors | {"generator": generator.get_state()}, {"curve": curve})
        yield curve[-1]
    if best_weights:
        model.load_state_dict(best_weights)


def _part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Those of a checkpoint that stand under ``name``."""
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}


def _best(curve: Sequence[Epoch]) -> int:
    """The first epoch of the lowest validation loss; 0 before the first."""
    return min(curve, key=lambda epoch: math.inf if epoch.val_loss is None else epoch.val_loss).epoch if curve else 0


def kept_epoch(curve: Sequence[Epoch], configuration: Configuration) -> int:
    """The epoch whose weights a run ended with: the last, or with early stopping that of the lowest validation loss."""
    return _best(curve) if configuration.early_stopping else curve[-1].epoch


def _augmentation(data: Examples, configuration: Configuration) -> Callable[[Tensor], Tensor] | None:
    """What is done to the pictures of a batch, if anything."""
    if not configuration.alters_pictures:
        return None
    return partial(
        augment,
        flip=configuration.flip,
        shift=configuration.shift,
        jitter=configuration.jitter,
        mean=data.mean,
        std=data.std,
    )


def _by_hand(model: MyNet, data: Examples, configuration: Configuration, settings: Train, batch_size: int) -> InPlace:
    return InPlace(
        model,
        settings.activation,
        data.x,
        data.y,
        batch_size,
        momentum=configuration.momentum,
        weight_decay=configuration.weight_decay,
        nesterov=configuration.nesterov,
        label_smoothing=configuration.label_smoothing,
        augment=_augmentation(data, configuration),
        dtype=hardware.product_dtype(settings.precision, data.x.device),
    )


class _ByAutograd:
    """Gradient descent on any network, by ``loss.backward()`` and ``sgd.SGD``."""

    def __init__(self, model: nn.Module, data: Examples, configuration: Configuration, batch_size: int) -> None:
        self.model, self.data, self.batch_size = model, data, batch_size
        self.augment, self.label_smoothing = _augmentation(data, configuration), configuration.label_smoothing
        self.optimizer = SGD(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            configuration.lr,
            configuration.momentum,
            configuration.weight_decay,
            configuration.nesterov,
        )

    def epoch(self, order: Tensor, learning_rates: Sequence[float]) -> Tensor:
        outputs = []
        for batch, lr in zip(torch.split(order, self.batch_size), learning_rates, strict=True):
            x = self.data.x[batch]
            y_pred = self.model(self.augment(x) if self.augment else x)
            self.optimizer.zero_grad()
            loss = cross_entropy(y_pred, self.data.y[batch], label_smoothing=self.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.param_groups[0]["lr"] = lr
            self.optimizer.step()
            outputs.append(y_pred.detach())
        return torch.cat(outputs)

    def state(self) -> dict[str, Tensor]:
        return {str(i): of["momentum_buffer"] for i, of in self.optimizer.state_dict()["state"].items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        buffers = {int(i): {"momentum_buffer": buffer} for i, buffer in state.items()}
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": buffers})


def summarise(
    curves: Sequence[Sequence[Epoch]],
    networks: Sequence[nn.Module],
    train: Examples,
    val: Examples,
    configuration: Configuration,
) -> dict[str, Any]:
    """The numbers by which a configuration is judged, from its runs: one curve and one trained network a seed.

    They are means over the seeds, of the weights after the last epoch, or the best with early stopping.
    ``val_accuracy_se`` and ``val_loss_se`` are standard errors (see ``uncertainty``); ``gap`` is training minus
    validation accuracy.  A list with a number for each seed are ``kept_epoch``, whose weights these are, and
    ``val_loss_std``, how much the validation loss still moves: its standard deviation over the last ``STEADY_EPOCHS``
    epochs.
    """
    on_val = [score(network, val, configuration.flip_average) for network in networks]
    val_accuracy = fmean(s.accuracy for s in on_val)
    train_accuracy = fmean(score(network, train, configuration.flip_average).accuracy for network in networks)
    last = [[epoch.val_loss for epoch in curve[-STEADY_EPOCHS:] if epoch.val_loss is not None] for curve in curves]
    return {
        "val_accuracy": val_accuracy,
        "val_accuracy_se": standard_error(torch.stack([s.correct for s in on_val])),
        "val_loss": fmean(s.loss for s in on_val),
        "val_loss_se": standard_error(torch.stack([s.losses for s in on_val])),
        "val_loss_std": [pstdev(losses) for losses in last],
        "train_accuracy": train_accuracy,
        "gap": train_accuracy - val_accuracy,
        "kept_epoch": [kept_epoch(curve, configuration) for curve in curves],
    }


def write_curves(path: Path, configuration: str, curves: Sequence[Sequence[Epoch]]) -> None:
    """Write the curves of a configuration's runs as CSV, one line an epoch."""
    rows = [(configuration, *epoch) for curve in curves for epoch in curve]
    files.write_csv(path, ("configuration", *Epoch._fields), rows)
