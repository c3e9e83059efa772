"""Whole trajectories side by side: hand-written SGD and ``torch.optim.SGD``; what trains and what it stands for.

SGD is compared bit by bit.  ``InPlace`` adds up in another order than ``backpropagation`` followed by ``SGD``, and is
compared in float64, where that leaves a difference far below any that a wrong formula would.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cifar2.gradcheck import relative_error
from cifar2.inplace import InPlace
from cifar2.mynet import LOSSES, MyNet, backpropagation, gradients, smoothed
from cifar2.sgd import SGD

# Without and with each of the two ideas, then Nesterov's variant.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight decay": {"weight_decay": 0.01},
    "momentum": {"momentum": 0.9},
    "momentum and weight decay": {"momentum": 0.9, "weight_decay": 0.01},
    "nesterov and weight decay": {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
}
# What training adds to that, beside the pictures' augmentation, which comes before both.
REGULARISED = {"dropout": 0.2, "label_smoothing": 0.1}


def trajectory_difference(
    x: Tensor, y: Tensor, n_classes: int, hyperparameters: dict[str, Any], steps: int, seed: int
) -> float:
    """Train two equal networks, one with each optimizer, and return the largest difference at any step.

    Args:
        x: N x features, float32 or float64, which is the precision of the whole trajectory.
        y: N labels.
        n_classes: number of outputs.
        hyperparameters: what both optimizers get besides the learning rate, which a schedule halves half-way.
        steps: number of steps, each on 32 random examples.
        seed: of the networks and the batches.
    """
    ours, theirs = (_network((x.shape[1], 16, n_classes), "tanh", seed).to(x.dtype) for _ in range(2))
    optimizers = [
        SGD(ours.parameters(), lr=0.02, **hyperparameters),
        torch.optim.SGD(theirs.parameters(), lr=0.02, **hyperparameters),
    ]
    schedules = [torch.optim.lr_scheduler.StepLR(optimizer, max(1, steps // 2), 0.5) for optimizer in optimizers]
    generator = torch.Generator().manual_seed(seed)
    differences = []
    for _ in range(steps):
        batch = torch.randint(len(x), (32,), generator=generator)
        for model, optimizer, schedule in zip((ours, theirs), optimizers, schedules, strict=True):
            optimizer.zero_grad()
            LOSSES["cross_entropy"].value(y[batch], model(x[batch])).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        differences += [(a - b).abs().max() for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)]
    return torch.stack(differences).max().item()


def inplace_difference(
    x: Tensor,
    y: Tensor,
    n_l: Sequence[int],
    activation: str,
    hyperparameters: dict[str, Any],
    batch_size: int,
    epochs: int,
    seed: int,
    dropout: float = 0.0,
    label_smoothing: float = 0.0,
) -> float:
    """Train two equal networks, one by ``InPlace`` and one by ``backpropagation`` and ``SGD``.

    Args:
        x: N x features, float64.
        y: N labels.
        n_l: units of each layer of the networks.
        activation: of their hidden layers.
        hyperparameters: what both get besides the learning rate, which falls from epoch to epoch.
        batch_size: examples a step.
        epochs: passes over ``x``.
        seed: of the networks, the order of the examples and the units dropped.
        dropout: as in ``MyNet``.
        label_smoothing: as in ``mynet.smoothed``.

    Returns:
        The largest difference between their parameters at the end, relative to the largest parameter.
    """
    in_place, apart = (_network(n_l, activation, seed, dropout).double() for _ in range(2))
    descent = InPlace(in_place, activation, x, y, batch_size, **hyperparameters, label_smoothing=label_smoothing)
    optimizer = SGD(apart.parameters(), lr=0.02, **hyperparameters)
    targets = smoothed(y, n_l[-1], label_smoothing, x.dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        for epoch in range(epochs):
            order = torch.randperm(len(x), generator=generator)
            batches = torch.split(order, batch_size)
            optimizer.param_groups[0]["lr"] = 0.02 / (1 + epoch)
            torch.manual_seed(epoch)
            descent.epoch(order, [0.02 / (1 + epoch)] * len(batches))
            torch.manual_seed(epoch)
            for batch in batches:
                backpropagation(apart, targets[batch], apart(x[batch]), "cross_entropy")
                for parameter, gradient in zip(apart.parameters(), gradients(apart), strict=True):
                    parameter.grad = gradient
                optimizer.step()
    return relative_error(list(in_place.parameters()), list(apart.parameters()))


def _network(n_l: Sequence[int], activation: str, seed: int, dropout: float = 0.0) -> MyNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MyNet(n_l, activation, "identity", dropout)
