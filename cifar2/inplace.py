"""MyNet's gradient descent with little left to do but its matrix products.

The mathematics is that of ``mynet.backpropagation`` and ``sgd.SGD`` with cross-entropy; the tests hold this module to
them.  What differs is where things are kept:

* Everything that a step writes has its place before the first step, so that no memory is asked for and given back.
* A matrix product can add to what its result holds: C <- beta C + alpha A B (``gemm``, as in every BLAS).  With the
  velocity for C and the momentum for beta, v <- momentum * v + delta^T a is one product: the momentum costs nothing,
  the gradient is never stored, and alpha = 1 / batch size makes the sum a mean.  What remains of the update is
  v <- v + weight_decay * p and p <- p - lr * v.
* All parameters are pieces of one vector, all velocities of another, so that each of these two is one operation.
* An activation overwrites its z, and its derivative overwrites the activation as soon as that has been used.  Only
  dropout needs a place more: the derivative is that of the activation before units were dropped.
* The outputs of an epoch are kept, and its loss and accuracy are computed once, by whoever wants them.

In bfloat16 the products read and write that format (8 significant bits, the range of float32), while parameters and
velocities stay float32: Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", 2019, section 3.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from cifar2.mynet import MyNet, smoothed


class Activation(NamedTuple):
    """An activation function that overwrites z with a, and its derivative, which overwrites a; both elementwise."""

    f_: Callable[[Tensor], Tensor]
    df_: Callable[[Tensor], Tensor]


# Each derivative can be had from a = f(z), which is why z need not be kept.
ACTIVATIONS = {
    "tanh": Activation(torch.tanh_, lambda a: a.square_().neg_().add_(1)),
    "relu": Activation(torch.relu_, Tensor.sign_),
    "sigmoid": Activation(torch.sigmoid_, lambda a: a.addcmul_(a, a, value=-1)),
    "identity": Activation(lambda z: z, lambda a: a.fill_(1)),
}


class _Buffers(NamedTuple):
    """What a step on a batch of N examples writes, beside parameters and velocities."""

    targets: Tensor  # N x classes, 1 at the label
    probabilities: Tensor  # N x classes
    a: list[Tensor]  # a[l] before dropout, N x n_l[l], for l = 0..L-1
    masks: dict[int, Tensor]  # of dropout: zeros and 1 / (1 - dropout), N x n_l[l], for l = 1..L-1
    read: list[Tensor]  # what layer l + 1 reads: a[l] after dropout, or itself
    delta: dict[int, Tensor]  # delta[l], N x n_l[l], for l = 1..L
    ones: Tensor  # N


class InPlace:
    """Gradient descent on the mean cross-entropy of a ``MyNet`` whose last layer is linear, with its dropout.

    Args:
        model: is trained; its parameters become pieces of one vector.
        activation: of its hidden layers, a key of ``ACTIVATIONS``.
        x: N pictures of any shape, on the model's device.
        y: their labels, N.
        batch_size: examples a step; an epoch's last step takes what is left.
        momentum, weight_decay, nesterov: as in ``sgd.SGD``.
        label_smoothing: as in ``mynet.smoothed``.
        augment: makes other pictures of a batch, before each step.
        dtype: what the matrix products read and write; the parameters' own unless named.
    """

    def __init__(
        self,
        model: MyNet,
        activation: str,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        label_smoothing: float = 0.0,
        augment: Callable[[Tensor], Tensor] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        parameters = list(model.parameters())
        shapes = [parameter.shape for parameter in parameters]
        n_l = [shapes[0][1], *(shape[0] for shape in shapes[1::2])]
        self.L = model.L
        self.f_, self.df_ = ACTIVATIONS[activation]
        self.momentum, self.weight_decay, self.dropout = momentum, weight_decay, model.dropout
        self.augment = augment
        self.batch_size = batch_size = min(batch_size, len(y))

        self.p = parameters_to_vector(parameters).detach()
        vector_to_parameters(self.p, parameters)
        self.v = torch.zeros_like(self.p)
        self.v_before = torch.zeros_like(self.p) if nesterov else None
        # What the products read and write: parameters and velocities themselves, or their counterparts in `dtype`.
        dtype = dtype or self.p.dtype
        self.converts = dtype != self.p.dtype
        self.w = self.p.to(dtype)
        self.g = torch.zeros_like(self.w) if self.converts else self.v
        self.g_as_v = torch.empty_like(self.v) if self.converts else None
        self.weights, self.biases = _by_layer(self.w, shapes)
        self.weight_sums, self.bias_sums = _by_layer(self.g, shapes)

        self.x = x if augment else x.flatten(1).to(dtype)
        self.targets = smoothed(y, n_l[-1], label_smoothing, self.p.dtype)
        self.outputs = self.w.new_empty(len(y), n_l[-1])
        a = [self.w.new_empty(batch_size, n) for n in n_l[:-1]]
        hidden = range(1, self.L)
        largest = _Buffers(
            targets=self.targets.new_empty(batch_size, n_l[-1]),
            probabilities=self.targets.new_empty(batch_size, n_l[-1]),
            a=a,
            masks={l: self.targets.new_empty(batch_size, n_l[l]) for l in hidden} if self.dropout else {},
            read=[a[0], *(torch.empty_like(a[l]) for l in hidden)] if self.dropout else a,
            delta={l: self.w.new_empty(batch_size, n_l[l]) for l in range(1, self.L + 1)},
            ones=self.w.new_ones(batch_size),
        )
        self.buffers = {n: _first(largest, n) for n in {batch_size, len(y) % batch_size}}

    @torch.no_grad()
    def epoch(self, order: Tensor, learning_rates: Sequence[float]) -> Tensor:
        """Take one step a batch, in this order of the examples.

        Args:
            order: N places in ``x``, on the same device.
            learning_rates: one a step.

        Returns:
            The outputs for the examples of ``order``, N x classes, each from before the step that it led to; the next
            epoch overwrites them.
        """
        for batch, outputs, lr in zip(
            torch.split(order, self.batch_size), torch.split(self.outputs, self.batch_size), learning_rates, strict=True
        ):
            self._step(batch, outputs, lr)
        return self.outputs

    def state(self) -> dict[str, Tensor]:
        """What a next epoch depends on beside the parameters."""
        return {"velocity": self.v}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self.v.copy_(state["velocity"])

    def _step(self, batch: Tensor, outputs: Tensor, lr: float) -> None:
        targets, probabilities, a, masks, read, delta, ones = self.buffers[len(batch)]
        if self.augment is None:
            torch.index_select(self.x, 0, batch, out=a[0])
        else:
            a[0].copy_(self.augment(self.x[batch]).flatten(1))
        torch.index_select(self.targets, 0, batch, out=targets)
        if self.v_before is not None:
            self.v_before.copy_(self.v)
        if self.converts:
            self.w.copy_(self.p)

        for l in range(1, self.L):
            self.f_(torch.addmm(self.biases[l], read[l - 1], self.weights[l].t(), out=a[l]))
            if self.dropout:
                masks[l].uniform_().ge_(self.dropout).div_(1 - self.dropout)
                torch.mul(a[l], masks[l], out=read[l])
        torch.addmm(self.biases[self.L], read[self.L - 1], self.weights[self.L].t(), out=outputs)

        torch.softmax(outputs, 1, probabilities.dtype, out=probabilities)
        torch.sub(probabilities, targets, out=delta[self.L])
        beta, alpha = 0.0 if self.converts else self.momentum, 1 / len(batch)
        for l in range(self.L, 0, -1):
            self.bias_sums[l].addmv_(delta[l].t(), ones, beta=beta, alpha=alpha)
            self.weight_sums[l].addmm_(delta[l].t(), read[l - 1], beta=beta, alpha=alpha)
            if l > 1:
                torch.mm(delta[l], self.weights[l], out=delta[l - 1])
                delta[l - 1].mul_(self.df_(a[l - 1]))
                if self.dropout:
                    delta[l - 1].mul_(masks[l - 1])
        self._update(lr)

    def _update(self, lr: float) -> None:
        if self.g_as_v is not None:
            self.g_as_v.copy_(self.g)
            torch.add(self.g_as_v, self.v, alpha=self.momentum, out=self.v)
        if self.weight_decay != 0:
            self.v.add_(self.p, alpha=self.weight_decay)
        if self.v_before is None:
            self.p.add_(self.v, alpha=-lr)
        else:  # g + momentum * v, where g = v - momentum * v_before
            self.p.add_(self.v, alpha=-lr * (1 + self.momentum))
            self.p.add_(self.v_before, alpha=lr * self.momentum)


def _by_layer(vector: Tensor, shapes: Sequence[torch.Size]) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """The pieces of ``vector`` that belong to weights and biases, for l = 1..L."""
    pieces = [
        piece.view(shape)
        for piece, shape in zip(torch.split(vector, [shape.numel() for shape in shapes]), shapes, strict=True)
    ]
    return dict(enumerate(pieces[::2], 1)), dict(enumerate(pieces[1::2], 1))


def _first(buffers: _Buffers, n: int) -> _Buffers:
    """The part of each buffer that a batch of ``n`` examples uses."""
    targets, probabilities, a, masks, read, delta, ones = buffers
    return _Buffers(
        targets[:n],
        probabilities[:n],
        [t[:n] for t in a],
        {l: t[:n] for l, t in masks.items()},
        [t[:n] for t in read],
        {l: t[:n] for l, t in delta.items()},
        ones[:n],
    )
