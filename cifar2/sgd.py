"""Stochastic gradient descent, written by hand, with momentum and L2 regularisation.

For a parameter p with gradient g, the velocity v starting as the first g:

    g <- g + weight_decay * p
    v <- momentum * v + g
    p <- p - lr * v                    Nesterov: p <- p - lr * (g + momentum * v)

This is ``torch.optim.SGD`` without dampening (https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html),
bit for bit; Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

HYPERPARAMETERS = ("lr", "momentum", "weight_decay", "nesterov")


class SGD(torch.optim.Optimizer):
    """Drop-in for ``torch.optim.SGD``: learning-rate schedules and ``state_dict`` work as they do there.

    Args:
        params: the parameters, or groups of them.
        lr: learning rate, 0 or above.
        momentum: 0 or above; 0 keeps no velocity.
        weight_decay: 0 or above; times the parameter, it is added to the gradient (L2).
        nesterov: look ahead along the velocity; needs a momentum above 0.

    Raises:
        ValueError: a value out of range.
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
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; returns what ``closure`` returns, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, [p.grad for p in params], **{name: group[name] for name in HYPERPARAMETERS})
        return loss

    def _update(
        self, params: list[Tensor], grads: list[Tensor], lr: float, momentum: float, weight_decay: float, nesterov: bool
    ) -> None:
        if weight_decay != 0:
            grads = list(torch._foreach_add(grads, params, alpha=weight_decay))
        if momentum != 0:
            self._accumulate(params, grads, momentum)
            velocities = [self.state[p]["momentum_buffer"] for p in params]
            grads = list(torch._foreach_add(grads, velocities, alpha=momentum)) if nesterov else velocities
        torch._foreach_add_(params, grads, alpha=-lr)

    def _accumulate(self, params: list[Tensor], grads: list[Tensor], momentum: float) -> None:
        moving = [(self.state[p]["momentum_buffer"], g) for p, g in zip(params, grads, strict=True) if self.state[p]]
        if moving:
            velocities, new = map(list, zip(*moving, strict=True))
            torch._foreach_mul_(velocities, momentum)
            torch._foreach_add_(velocities, new)
        for p, g in zip(params, grads, strict=True):
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = g.clone()
