"""MyNet's gradient descent with little left to do but its matrix products.

The mathematics is that of ``mynet.backpropagation`` and ``sgd.SGD`` with cross-entropy; ``sgdcheck`` verifies that.
What differs is where values are kept:

* Every buffer that a step writes is allocated before the first step.
* A matrix product can add to what its result holds: C <- beta C + alpha A B (``gemm``, as in every BLAS).  With the
  velocity for C and the momentum for beta, v <- momentum * v + delta^T a is one product: the momentum costs nothing,
  the gradient is never stored, and alpha = 1 / batch size makes the sum a mean.  What remains of the update is
  v <- v + weight_decay * p and p <- p - lr * v.
* All parameters are views of one vector, all velocities of another.  These two operations take both vectors in pieces
  that fit into the processor's cache, so that the second finds there what the first has read.
* An activation overwrites its z, and its derivative overwrites the activation as soon as that has been used.  Only
  dropout needs one more buffer: the derivative is that of the activation before units were dropped.
* The outputs of an epoch are kept, so that its loss and accuracy are computed once, at its end.

In bfloat16 the products read and write that format (8 significant bits, the range of float32), while parameters and
velocities stay float32: Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", 2019, section 3.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from cifar2.losses import smooth_labels
from cifar2.mynet import MyNet

# Parameters in a piece of the update; half a megabyte.
PIECE = 2**17


class InPlaceActivation(NamedTuple):
    """An activation function that overwrites z with a, and its derivative, which overwrites a; both elementwise."""

    f_: Callable[[Tensor], Tensor]
    df_: Callable[[Tensor], Tensor]


# Each derivative is a function of a = f(z), so z need not be kept.
IN_PLACE = {
    "tanh": InPlaceActivation(torch.tanh_, lambda a: a.square_().neg_().add_(1)),
    "relu": InPlaceActivation(torch.relu_, Tensor.sign_),
    "sigmoid": InPlaceActivation(torch.sigmoid_, lambda a: a.addcmul_(a, a, value=-1)),
    "identity": InPlaceActivation(lambda z: z, lambda a: a.fill_(1)),
}


class _Buffers(NamedTuple):
    """Everything that a step on a batch of N examples writes, except parameters and velocities."""

    targets: Tensor  # N x classes, 1 at the label
    totals: Tensor | None  # N x 1, the sum of each row of targets; None if it is 1
    probabilities: Tensor  # N x classes
    a: list[Tensor]  # a[l] before dropout, N x n_l[l], for l = 0..L-1
    masks: dict[int, Tensor]  # dropout's factors: zeros and 1 / (1 - dropout), N x n_l[l], for l = 1..L-1
    read: list[Tensor]  # the input of layer l + 1: a[l] after dropout, or a[l] itself
    delta: dict[int, Tensor]  # delta[l], N x n_l[l], for l = 1..L
    ones: Tensor  # N


class InPlace:
    """Gradient descent on the mean cross-entropy of a ``MyNet`` with a linear last layer.

    Args:
        model: the network to train; its parameters become views of one vector.
        x: N images of any shape, on the model's device.
        y: their labels, N.
        batch_size: examples per step; the last step of an epoch takes the rest.
        momentum, weight_decay, nesterov: as in ``sgd.SGD``.
        label_smoothing, class_weights: as in ``losses.smooth_labels``.
        augment: changes the images of a batch before each step.
        dtype: number format of the matrix products; default: that of the parameters.

    Raises:
        ValueError: the last layer of ``model`` is not linear.
    """

    def __init__(
        self,
        model: MyNet,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if model.output_activation != "identity":
            raise ValueError(f"the output activation is {model.output_activation}, and must be identity")
        parameters = list(model.parameters())
        shapes = [parameter.shape for parameter in parameters]
        n_l = model.n_l
        self.L = model.L
        self.f_, self.df_ = IN_PLACE[model.activation]
        self.momentum, self.weight_decay, self.dropout = momentum, weight_decay, model.dropout
        self.augment = augment
        self.batch_size = batch_size = min(batch_size, len(y))

        self.p = parameters_to_vector(parameters).detach()
        vector_to_parameters(self.p, parameters)
        self.v = torch.zeros_like(self.p)
        self.v_before = torch.zeros_like(self.p) if nesterov else None
        # A GPU has no such cache, and starts each operation at a cost.
        piece = PIECE if self.p.device.type == "cpu" else len(self.p)
        ps, vs = torch.split(self.p, piece), torch.split(self.v, piece)
        before = [None] * len(ps) if self.v_before is None else torch.split(self.v_before, piece)
        self.pieces = list(zip(ps, vs, before, strict=True))
        # The products read and write parameters and velocities themselves, or their counterparts in `dtype`.
        dtype = dtype or self.p.dtype
        self.converts = dtype != self.p.dtype
        self.w = self.p.to(dtype)
        self.g = torch.zeros_like(self.w) if self.converts else self.v
        self.g_as_v = torch.empty_like(self.v) if self.converts else None
        self.weights, self.biases = _by_layer(self.w, shapes)
        self.weight_sums, self.bias_sums = _by_layer(self.g, shapes)

        self.x = x if augment else x.flatten(1).to(dtype)
        self.targets = smooth_labels(y, n_l[-1], label_smoothing, self.p.dtype, class_weights)
        self.totals = None if class_weights is None else self.targets.sum(1, keepdim=True)
        self.outputs = self.w.new_empty(len(y), n_l[-1])
        a = [self.w.new_empty(batch_size, n) for n in n_l[:-1]]
        hidden = range(1, self.L)
        largest = _Buffers(
            targets=self.targets.new_empty(batch_size, n_l[-1]),
            totals=None if self.totals is None else self.totals.new_empty(batch_size, 1),
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
        """Pass over the data once (see ``descent.Descent.epoch``); the next epoch overwrites the returned outputs."""
        for batch, outputs, lr in zip(
            torch.split(order, self.batch_size), torch.split(self.outputs, self.batch_size), learning_rates, strict=True
        ):
            self._step(batch, outputs, lr)
        return self.outputs

    def state(self) -> dict[str, Tensor]:
        """The state that the next epoch needs beside the parameters."""
        return {"velocity": self.v}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a result of :meth:`state`."""
        self.v.copy_(state["velocity"])

    def _step(self, batch: Tensor, outputs: Tensor, lr: float) -> None:
        targets, totals, probabilities, a, masks, read, delta, ones = self.buffers[len(batch)]
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
        if self.totals is not None:
            probabilities.mul_(torch.index_select(self.totals, 0, batch, out=totals))
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
        for p, v, v_before in self.pieces:
            if self.weight_decay != 0:
                v.add_(p, alpha=self.weight_decay)
            if v_before is None:
                p.add_(v, alpha=-lr)
            else:  # g + momentum * v, where g = v - momentum * v_before
                p.add_(v, alpha=-lr * (1 + self.momentum))
                p.add_(v_before, alpha=lr * self.momentum)


def _by_layer(vector: Tensor, shapes: Sequence[torch.Size]) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """The pieces of ``vector`` that hold the weights and the biases of layer l = 1..L."""
    pieces = [
        piece.view(shape)
        for piece, shape in zip(torch.split(vector, [shape.numel() for shape in shapes]), shapes, strict=True)
    ]
    return dict(enumerate(pieces[::2], 1)), dict(enumerate(pieces[1::2], 1))


def _first(buffers: _Buffers, n: int) -> _Buffers:
    """The first ``n`` rows of each buffer, for a batch of ``n`` examples."""
    targets, totals, probabilities, a, masks, read, delta, ones = buffers
    return _Buffers(
        targets[:n],
        None if totals is None else totals[:n],
        probabilities[:n],
        [t[:n] for t in a],
        {l: t[:n] for l, t in masks.items()},
        [t[:n] for t in read],
        {l: t[:n] for l, t in delta.items()},
        ones[:n],
    )
