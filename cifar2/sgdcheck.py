"""Compare hand-written SGD with ``torch.optim.SGD``, and ``InPlace`` with backpropagation and SGD.

SGD must be bit-identical after every step.  ``InPlace`` sums in another order than ``backpropagation`` followed by
``SGD``.  The two are compared after whole epochs in float64, where that difference is far below the effect of any wrong
formula.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cifar2.descent import Descent, GradientDescent, by_backpropagation
from cifar2.gradcheck import relative_error
from cifar2.inplace import InPlace
from cifar2.losses import LOSSES
from cifar2.mynet import MyNet
from cifar2.sgd import SGD

# Momentum and weight decay off and on, then Nesterov's variant.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight decay": {"weight_decay": 0.01},
    "momentum": {"momentum": 0.9},
    "momentum and weight decay": {"momentum": 0.9, "weight_decay": 0.01},
    "nesterov and weight decay": {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
}
# Regularisation inside the network and the loss.
REGULARISED = {"dropout": 0.2, "label_smoothing": 0.1}


def sgd_differences(x: Tensor, y: Tensor, n_classes: int, steps: int, seed: int) -> dict[str, float]:
    """The result of :func:`trajectory_difference` for each variant in float32 and float64, by its name."""
    return {
        f"SGD {name}, {precision}": trajectory_difference(
            x.to(getattr(torch, precision)), y, n_classes, hyperparameters, steps, seed
        )
        for name, hyperparameters in VARIANTS.items()
        for precision in ("float32", "float64")
    }


def inplace_differences(x: Tensor, y: Tensor, n_l: Sequence[int], activation: str, seed: int) -> dict[str, float]:
    """The result of :func:`inplace_difference` for each variant and with regularisation, by its name."""
    regularised = VARIANTS["momentum and weight decay"] | REGULARISED
    weights = torch.linspace(0.5, 1.5, n_l[-1])
    variants = VARIANTS | {
        "dropout and label smoothing": regularised,
        "dropout, label smoothing and class weights": regularised | {"class_weights": weights},
    }
    return {
        f"in place, {name}": inplace_difference(x.double(), y, n_l, activation, 100, 2, seed, **settings)
        for name, settings in variants.items()
    }


def trajectory_difference(
    x: Tensor, y: Tensor, n_classes: int, hyperparameters: dict[str, Any], steps: int, seed: int
) -> float:
    """Train two equal networks, one with each optimizer, and return the largest difference of two parameters.

    Args:
        x: N x features, float32 or float64: the precision of the whole trajectory.
        y: N labels.
        n_classes: number of outputs.
        hyperparameters: arguments of both optimizers, except the learning rate, which a schedule halves half-way.
        steps: number of steps, each on 32 random examples.
        seed: seed of the networks and the batches.
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
    batch_size: int,
    epochs: int,
    seed: int,
    dropout: float = 0.0,
    **settings: Any,  # noqa: ANN401
) -> float:
    """Train two equal networks, one with ``InPlace`` and one with ``backpropagation`` and ``SGD``.

    Args:
        x: N x features, float64.
        y: N labels.
        n_l: number of units of each layer.
        activation: activation function of the hidden layers.
        batch_size: examples per step.
        epochs: passes over ``x``.
        seed: seed of the networks, of the order of the examples, and of dropout.
        dropout: as in ``MyNet``.
        **settings: further arguments of both; the learning rate falls from epoch to epoch.

    Returns:
        The largest difference of two parameters at the end, relative to the largest parameter.
    """
    networks = [_network(n_l, activation, seed, dropout).double() for _ in range(2)]
    descents: list[Descent] = [
        InPlace(networks[0], x, y, batch_size, **settings),
        GradientDescent(networks[1], x, y, by_backpropagation, batch_size, **settings),
    ]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        for epoch in range(epochs):
            order = torch.randperm(len(x), generator=generator)
            rates = [0.02 / (1 + epoch)] * len(torch.split(order, batch_size))
            for descent in descents:
                torch.manual_seed(epoch)  # the same units are dropped
                descent.epoch(order, rates)
    return relative_error(*(list(network.parameters()) for network in networks))


def _network(n_l: Sequence[int], activation: str, seed: int, dropout: float = 0.0) -> MyNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MyNet(n_l, activation, "identity", dropout)
