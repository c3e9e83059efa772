"""The hand-written SGD and ``torch.optim.SGD`` side by side, step by step, bit by bit."""

from typing import Any

import torch
from torch import Tensor

from cifar2.mynet import LOSSES, MyNet
from cifar2.sgd import SGD

# Without and with each of the two ideas, then Nesterov's variant.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight decay": {"weight_decay": 0.01},
    "momentum": {"momentum": 0.9},
    "momentum and weight decay": {"momentum": 0.9, "weight_decay": 0.01},
    "nesterov and weight decay": {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
}


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
    ours, theirs = (_network(x, n_classes, seed) for _ in range(2))
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


def _network(x: Tensor, n_classes: int, seed: int) -> MyNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MyNet((x.shape[1], 16, n_classes), "tanh", "identity").to(x.dtype)
