"""Stochastic gradient descent, written by hand, with momentum and L2 regularisation.

For a parameter p with gradient g, the velocity v starting as the first g:

    g <- g + weight_decay * p
    v <- momentum * v + g
    p <- p - lr * v                    Nesterov: p <- p - lr * (g + momentum * v)

This is ``torch.optim.SGD`` without dampening (https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html),
bit for bit; Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class SGD(torch.optim.Optimizer):
    """Drop-in for ``torch.optim.SGD``: learning-rate schedules and ``state_dict`` work as they do there.

    Args:
        params: the parameters, or groups of them.
        lr: learning rate, 0 or above.
        momentum: 0 or above; 0 keeps no velocity.
        weight_decay: 0 or above; the L2 coefficient.
        nesterov: use Nesterov's variant; needs a momentum above 0.

    Raises:
        ValueError: a value is out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} is {value}, and must be a number from 0")
        if nesterov and momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            lr, momentum, weight_decay = group["lr"], group["momentum"], group["weight_decay"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                g = p.grad.add(p, alpha=weight_decay) if weight_decay else p.grad
                if momentum:
                    state = self.state[p]
                    v = state["momentum_buffer"].mul_(momentum).add_(g) if state else g.clone()
                    state["momentum_buffer"] = v
                    g = g.add(v, alpha=momentum) if group["nesterov"] else v
                p.add_(g, alpha=-lr)
