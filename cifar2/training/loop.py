"""The training loop."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from numpy.random import SeedSequence
from torch import Tensor, nn

from cifar2.dataset.augment import augment
from cifar2.dataset.examples import Examples
from cifar2.descent import Descent, GradientDescent, by_autograd, by_backpropagation
from cifar2.evaluation.scores import Scores, score, scores_of
from cifar2.inplace import InPlace
from cifar2.losses import balanced_weights
from cifar2.mynet import MyNet
from cifar2.params import Configuration, Train
from cifar2.training import hardware
from cifar2.training.checkpoint import Checkpoint
from cifar2.training.record import Epoch, Resumed, best_epoch
from cifar2.training.schedule import learning_rates


class Diverged(Exception):
    """The loss is no longer a finite number; the message names seed, epoch and step."""


def train(
    model: nn.Module,
    data: Examples,
    val: Examples | None,
    configuration: Configuration,
    train_params: Train,
    seed: int,
    checkpoint: Checkpoint | None = None,
) -> Iterator[Epoch]:
    """Train ``model``, and yield the record of each epoch.

    With early stopping, the model gets the weights of its best epoch after the last record.  The epochs before a
    checkpoint are yielded first, as ``Resumed``.

    Args:
        model: a new network, on the device of ``data``.
        data: the training set; every epoch visits all examples once, in an order drawn from ``seed``.
        val: the validation set, measured after each epoch; early stopping needs it.
        configuration: the configuration to train.
        train_params: the settings that all configurations share.
        seed: seed of everything random in an epoch: the order of the examples, augmentation, dropout.
        checkpoint: the checkpoint to resume from and to write.

    Raises:
        UserError: the checkpoint is corrupted, or cannot be written.
        Diverged: a loss is infinite or not a number; raised at the end of the epoch.
    """
    epochs = configuration.epochs or train_params.epochs
    batch_size = configuration.batch_size or train_params.batch_size
    descent = _descent(model, data, configuration, train_params, batch_size)
    steps = math.ceil(len(data.y) / batch_size)
    rates = learning_rates(configuration.schedule, configuration.lr, epochs * steps)
    generator = torch.Generator().manual_seed(seed)
    curve: list[Epoch] = []
    best_weights: dict[str, Tensor] = {}
    if checkpoint and (saved := checkpoint.load()):
        curve = [Resumed(*row) for row in saved.curve]
        model.load_state_dict(saved.tensors["model"])
        descent.load_state(saved.tensors["descent"])
        generator.set_state(saved.tensors["generator"]["state"])
        best_weights = saved.tensors["best"]
        yield from curve
    for epoch in range(len(curve) + 1, epochs + 1):
        if configuration.early_stopping and val and epoch - 1 - best_epoch(curve) == configuration.early_stopping:
            break
        order = torch.randperm(len(data.y), generator=generator).to(data.y.device)
        model.train()
        with torch.random.fork_rng():
            # Augmentation and dropout draw from a random state of the epoch's own, whatever was drawn before.
            torch.manual_seed(int(SeedSequence((seed, epoch)).generate_state(1)[0]))
            outputs = descent.epoch(order, rates[(epoch - 1) * steps : epoch * steps])
        on_train = scores_of(outputs, data.y[order])
        on_val = score(model, val, configuration.flip_average) if val else None
        curve.append(_record(seed, epoch, on_train, on_val, batch_size))
        if configuration.early_stopping and val and best_epoch(curve) == epoch:
            best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if checkpoint:
            checkpoint.save(
                curve,
                model=model.state_dict(),
                descent=descent.state(),
                generator={"state": generator.get_state()},
                best=best_weights,
            )
        yield curve[-1]
    if best_weights:
        model.load_state_dict(best_weights)


def _record(seed: int, epoch: int, train: Scores, val: Scores | None, batch_size: int) -> Epoch:
    """The record of an epoch.

    Raises:
        Diverged: a loss is infinite or not a number.
    """
    if not math.isfinite(train.loss):
        step = 1 + int(train.losses.isfinite().logical_not().nonzero()[0]) // batch_size
        raise Diverged(f"seed {seed}, epoch {epoch}, step {step}: the loss is not finite")
    if val and not math.isfinite(val.loss):
        raise Diverged(f"seed {seed}, epoch {epoch}: the validation loss is not finite")
    return Epoch(seed, epoch, train.loss, train.accuracy, val and val.loss, val and val.accuracy)


def _descent(
    model: nn.Module, data: Examples, configuration: Configuration, train_params: Train, batch_size: int
) -> Descent:
    """The training algorithm: ``train.gradients`` for MyNet, autograd for any other network."""
    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "momentum": configuration.momentum,
        "weight_decay": configuration.weight_decay,
        "nesterov": configuration.nesterov,
        "label_smoothing": configuration.label_smoothing,
        "class_weights": balanced_weights(data.y) if configuration.class_weights == "balanced" else None,
        "augment": _augmentation(data, configuration),
    }
    if isinstance(model, MyNet) and train_params.gradients == "in_place":
        dtype = hardware.product_dtype(train_params.precision, data.x.device)
        return InPlace(model, data.x, data.y, **settings, dtype=dtype)
    by_hand = isinstance(model, MyNet) and train_params.gradients == "backpropagation"
    return GradientDescent(model, data.x, data.y, by_backpropagation if by_hand else by_autograd, **settings)


def _augmentation(data: Examples, configuration: Configuration) -> Callable[[Tensor], Tensor] | None:
    """The augmentation of a batch of images, if the configuration has one."""
    if not configuration.augments:
        return None
    return partial(
        augment,
        flip=configuration.flip,
        shift=configuration.shift,
        jitter=configuration.jitter,
        mean=data.mean,
        std=data.std,
    )
