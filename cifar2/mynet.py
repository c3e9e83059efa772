"""MyNet: a multilayer perceptron whose backpropagation is written by hand.

For a layer l with weights w[l] and biases b[l], the forward pass is

    z[l] = a[l-1] w[l]^T + b[l]        a[l] = f[l](z[l])        a[0] = the flattened input

with one row per image.  With delta[l] = dL/dz[l], the chain rule gives, from the last layer to the first,

    delta[L] = dL/da[L] * df[L](z[L])
    delta[l] = (delta[l+1] w[l+1]) * df[l](z[l])
    dL_dw[l] = delta[l]^T a[l-1]       dL_db[l] = the sum of delta[l] over the batch

With dropout, a hidden a[l] is multiplied by a random mask[l] of zeros and 1 / (1 - dropout), and so is da[l]/dz[l]
(Srivastava et al., "Dropout", 2014).

(Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", 1986; Bishop, "Pattern
Recognition and Machine Learning", section 5.3.)
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from cifar2.losses import LOSSES


class Activation(NamedTuple):
    """An activation function and its derivative; both elementwise functions of z."""

    f: Callable[[Tensor], Tensor]
    df: Callable[[Tensor], Tensor]


ACTIVATIONS = {
    "tanh": Activation(torch.tanh, lambda z: 1 - torch.tanh(z) ** 2),
    "relu": Activation(torch.relu, lambda z: (z > 0).to(z.dtype)),  # 0 at the kink, as in autograd
    "sigmoid": Activation(torch.sigmoid, lambda z: torch.sigmoid(z) * (1 - torch.sigmoid(z))),
    "identity": Activation(lambda z: z, torch.ones_like),
}


class MyNet(nn.Module):
    """A multilayer perceptron that keeps what its backpropagation needs.

    Args:
        n_l: number of units of each layer, the input layer first: L + 1 numbers.
        activation: activation function of the hidden layers, a key of ``ACTIVATIONS``.
        output_activation: activation function of the last layer; default: ``activation``.
        dropout: fraction of each hidden layer's units that are dropped for an example in training.

    Attributes:
        n_l, activation, output_activation, dropout: the arguments.
        L: number of layers with weights.
        fc: ``fc["1"]`` to ``fc[str(L)]``, each an ``nn.Linear``.
        f, df: for l = 1..L the activation function of layer l and its derivative.
        z, a: for the last batch of N, z[l] (l = 1..L) and a[l] (l = 0..L), each N x n_l[l].
        mask: for hidden l, the factors of a[l], drawn from PyTorch's global random state; empty without dropout.
        dL_dw, dL_db: for l = 1..L the gradients from ``backpropagation``, with the shapes of the parameters.
    """

    def __init__(
        self,
        n_l: Sequence[int],
        activation: str = "tanh",
        output_activation: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.n_l = tuple(n_l)
        self.activation, self.output_activation = activation, output_activation or activation
        self.dropout = dropout
        self.L = len(n_l) - 1
        layers = range(1, self.L + 1)
        names = {l: self.activation if l < self.L else self.output_activation for l in layers}
        self.fc = nn.ModuleDict({str(l): nn.Linear(n_l[l - 1], n_l[l]) for l in layers})
        self.f = {l: ACTIVATIONS[names[l]].f for l in layers}
        self.df = {l: ACTIVATIONS[names[l]].df for l in layers}
        self.z: dict[int, Tensor] = {}
        self.a: dict[int, Tensor] = {}
        self.mask: dict[int, Tensor] = {}
        self.dL_dw: dict[int, Tensor] = {}
        self.dL_db: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Compute a[L], N x n_l[L], for ``x`` of N images of any shape with n_l[0] values each."""
        self.a[0] = torch.flatten(x, 1)
        self.mask = {}
        for l in range(1, self.L + 1):
            self.z[l] = self.fc[str(l)](self.a[l - 1])
            self.a[l] = self.f[l](self.z[l])
            if self.training and self.dropout and l < self.L:
                self.mask[l] = (torch.rand_like(self.a[l]) >= self.dropout).to(x.dtype) / (1 - self.dropout)
                self.a[l] = self.a[l] * self.mask[l]
        return self.a[self.L]

    def w(self, l: int) -> Tensor:
        """The weights of layer ``l``, n_l[l] x n_l[l-1]."""
        return cast(nn.Linear, self.fc[str(l)]).weight


@torch.no_grad()
def backpropagation(model: MyNet, y_true: Tensor, y_pred: Tensor, loss: str = "squared_error") -> None:
    """Fill ``model.dL_dw`` and ``model.dL_db`` with the gradients of the loss, without autograd.

    Args:
        model: the network that has just computed ``y_pred``.
        y_true: the targets, in a form that the loss accepts (see ``LOSSES``).
        y_pred: the output of ``model``, N x n_l[L].
        loss: a key of ``LOSSES``.

    Raises:
        ValueError: the shapes of ``y_true`` and ``y_pred`` do not fit together.
    """
    delta = LOSSES[loss].gradient(y_true, y_pred) * model.df[model.L](model.z[model.L])
    for l in range(model.L, 0, -1):
        model.dL_dw[l] = delta.T @ model.a[l - 1]
        model.dL_db[l] = delta.sum(0)
        if l > 1:  # the gradient of the input is not needed
            delta = (delta @ model.w(l)) * model.df[l - 1](model.z[l - 1]) * model.mask.get(l - 1, 1)


def gradients(model: MyNet) -> list[Tensor]:
    """The gradients from ``backpropagation``, in the order of ``model.parameters()``."""
    return [gradient for l in range(1, model.L + 1) for gradient in (model.dL_dw[l], model.dL_db[l])]
