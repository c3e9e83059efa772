"""One epoch of gradient descent as a course writes it: forward pass, gradients, SGD step, batch after batch.

The gradients are those of the mean cross-entropy, by hand (``mynet.backpropagation``) or by PyTorch (autograd).
``inplace`` computes the same epoch faster, and trains by default (``train.gradients`` in params.yaml).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cifar2.losses import smooth_labels
from cifar2.mynet import MyNet, backpropagation, gradients
from cifar2.sgd import SGD


class Descent(Protocol):
    """A training algorithm: ``GradientDescent`` here, or ``inplace.InPlace``."""

    def epoch(self, order: Tensor, learning_rates: Sequence[float], /) -> Tensor:
        """Pass over the data once, with one step per batch.

        Args:
            order: the indices of the N examples in the order of this epoch, on the device of the data.
            learning_rates: one per step.

        Returns:
            The outputs for the examples of ``order``, N x classes, each computed before the step of its batch.
        """

    def state(self) -> dict[str, Tensor]:
        """The state that the next epoch needs beside the network: the velocities."""

    def load_state(self, state: Mapping[str, Tensor], /) -> None:
        """Continue from a result of :meth:`state`."""


def by_backpropagation(
    model: nn.Module, y: Tensor, y_pred: Tensor, label_smoothing: float, class_weights: Tensor | None
) -> None:
    """Set the gradient of each parameter of a ``MyNet`` with linear output, without autograd."""
    network = cast(MyNet, model)
    y_true = smooth_labels(y, y_pred.shape[1], label_smoothing, y_pred.dtype, class_weights)
    backpropagation(network, y_true, y_pred, "cross_entropy")
    for parameter, gradient in zip(network.parameters(), gradients(network), strict=True):
        parameter.grad = gradient


def by_autograd(
    model: nn.Module, y: Tensor, y_pred: Tensor, label_smoothing: float, class_weights: Tensor | None
) -> None:
    """Set the gradient of each parameter of any network, with autograd."""
    model.zero_grad()
    if class_weights is None:
        loss = cross_entropy(y_pred, y, label_smoothing=label_smoothing)
    else:  # PyTorch's mean would divide by the weights of this batch
        loss = cross_entropy(y_pred, y, class_weights, reduction="sum", label_smoothing=label_smoothing) / len(y)
    loss.backward()  # type: ignore[no-untyped-call]


class GradientDescent:
    """Gradient descent on the mean cross-entropy.

    Args:
        model: the network to train.
        x: N inputs, on the device of the network.
        y: N labels.
        set_gradients: ``by_backpropagation`` or ``by_autograd``.
        batch_size: examples per step; the last step of an epoch takes the rest.
        momentum, weight_decay, nesterov: as in ``SGD``.
        label_smoothing, class_weights: as in ``losses.smooth_labels``.
        augment: changes the inputs of a batch before each step.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        set_gradients: Callable[[nn.Module, Tensor, Tensor, float, Tensor | None], None],
        batch_size: int,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model, self.x, self.y = model, x, y
        self.set_gradients, self.batch_size = set_gradients, batch_size
        self.label_smoothing, self.class_weights, self.augment = label_smoothing, class_weights, augment
        self.sgd = SGD(model.parameters(), 0.0, momentum, weight_decay, nesterov)

    def epoch(self, order: Tensor, learning_rates: Sequence[float]) -> Tensor:
        """Pass over the data once (see ``Descent.epoch``)."""
        outputs = []
        for batch, lr in zip(torch.split(order, self.batch_size), learning_rates, strict=True):
            x = self.augment(self.x[batch]) if self.augment else self.x[batch]
            y_pred = self.model(x)
            self.set_gradients(self.model, self.y[batch], y_pred, self.label_smoothing, self.class_weights)
            self.sgd.param_groups[0]["lr"] = lr
            self.sgd.step()
            outputs.append(y_pred.detach())
        return torch.cat(outputs)

    def state(self) -> dict[str, Tensor]:
        """The velocities."""
        return {str(i): of["momentum_buffer"] for i, of in self.sgd.state_dict()["state"].items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a result of :meth:`state`."""
        buffers = {int(i): {"momentum_buffer": buffer} for i, buffer in state.items()}
        self.sgd.load_state_dict(self.sgd.state_dict() | {"state": buffers})
