"""MyNet: a multilayer perceptron whose backpropagation is written by hand.

For a layer l with weights w[l] and biases b[l], the forward pass is

    z[l] = a[l-1] w[l]^T + b[l]        a[l] = f[l](z[l])        a[0] = the flattened input

one row a picture.  With delta[l] = dL/dz[l], the chain rule gives, from the last layer to the first,

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
from torch.nn.functional import one_hot


class Activation(NamedTuple):
    """An activation function and its derivative, both of z, elementwise."""

    f: Callable[[Tensor], Tensor]
    df: Callable[[Tensor], Tensor]


ACTIVATIONS = {
    "tanh": Activation(torch.tanh, lambda z: 1 - torch.tanh(z) ** 2),
    "relu": Activation(torch.relu, lambda z: (z > 0).to(z.dtype)),  # 0 at the kink, as autograd has it
    "sigmoid": Activation(torch.sigmoid, lambda z: torch.sigmoid(z) * (1 - torch.sigmoid(z))),
    "identity": Activation(lambda z: z, torch.ones_like),
}


class Loss(NamedTuple):
    """A loss as a scalar, and its gradient with respect to ``y_pred``; both of ``(y_true, y_pred)``."""

    value: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]


def _squared_error(y_true: Tensor, y_pred: Tensor) -> Tensor:
    return ((y_pred - _shaped(y_true, y_pred)) ** 2).sum()


def _squared_error_gradient(y_true: Tensor, y_pred: Tensor) -> Tensor:
    return 2 * (y_pred - _shaped(y_true, y_pred))


def _shaped(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Give a 1-D target the shape of ``y_pred``, since N - (N x 1) would broadcast to N x N and still look right."""
    if y_true.dim() == 1 and y_true.numel() == y_pred.numel():
        return y_true.view_as(y_pred)
    if y_true.shape != y_pred.shape:
        raise ValueError(f"y_true has shape {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}")
    return y_true


def _cross_entropy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    return (torch.logsumexp(y_pred, 1) - (_distribution(y_true, y_pred) * y_pred).sum(1)).mean()


def _cross_entropy_gradient(y_true: Tensor, y_pred: Tensor) -> Tensor:
    return (torch.softmax(y_pred, 1) - _distribution(y_true, y_pred)) / len(y_true)


def _distribution(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """The probability of each class: 1 for a label, or as it is given."""
    if y_true.shape == y_pred.shape[:1]:
        return one_hot(y_true, y_pred.shape[1]).to(y_pred.dtype)
    if y_true.shape != y_pred.shape:
        raise ValueError(f"y_true has shape {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}")
    return y_true


def smoothed(y: Tensor, n_classes: int, label_smoothing: float, dtype: torch.dtype) -> Tensor:
    """Labels as probabilities, N x classes, of which ``label_smoothing`` is shared out evenly.

    Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016, section 7.
    """
    return one_hot(y, n_classes).to(dtype) * (1 - label_smoothing) + label_smoothing / n_classes


LOSSES = {
    # The sum of squared residuals over batch and outputs; y_true like y_pred, or 1-D with as many elements.
    "squared_error": Loss(_squared_error, _squared_error_gradient),
    # Softmax cross-entropy, the mean over the batch; y_true holds N labels or N x classes probabilities, y_pred N x
    # classes logits.
    "cross_entropy": Loss(_cross_entropy, _cross_entropy_gradient),
}


class MyNet(nn.Module):
    """A multilayer perceptron that keeps what its backpropagation needs.

    Args:
        n_l: the number of units of each layer, the input's first: L + 1 numbers.
        activation: of the hidden layers, a key of ``ACTIVATIONS``.
        output_activation: of the last layer; the same unless named.
        dropout: the share of each hidden layer's units that an example loses in training.

    Attributes:
        L: the number of layers with weights.
        fc: ``fc["1"]`` to ``fc[str(L)]``, each an ``nn.Linear``.
        f, df: for l = 1..L the activation function of layer l and its derivative.
        z, a: for the last batch of N, z[l] (l = 1..L) and a[l] (l = 0..L), each N x n_l[l].
        mask: what its hidden a[l] were multiplied by, drawn from PyTorch's global random state; none without dropout.
        dL_dw, dL_db: for l = 1..L the gradients that ``backpropagation`` found, shaped like the parameters.
    """

    def __init__(
        self,
        n_l: Sequence[int],
        activation: str = "tanh",
        output_activation: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.L = len(n_l) - 1
        layers = range(1, self.L + 1)
        names = {l: activation if l < self.L else output_activation or activation for l in layers}
        self.fc = nn.ModuleDict({str(l): nn.Linear(n_l[l - 1], n_l[l]) for l in layers})
        self.f = {l: ACTIVATIONS[names[l]].f for l in layers}
        self.df = {l: ACTIVATIONS[names[l]].df for l in layers}
        self.z: dict[int, Tensor] = {}
        self.a: dict[int, Tensor] = {}
        self.mask: dict[int, Tensor] = {}
        self.dL_dw: dict[int, Tensor] = {}
        self.dL_db: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Compute a[L], N x n_l[L], for ``x`` of N pictures of any shape with n_l[0] values each."""
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
        model: has just computed ``y_pred``.
        y_true: the targets, in the form that the loss wants (see ``LOSSES``).
        y_pred: the output of ``model``, N x n_l[L].
        loss: a key of ``LOSSES``.

    Raises:
        ValueError: ``y_true`` and ``y_pred`` do not fit.
    """
    delta = LOSSES[loss].gradient(y_true, y_pred) * model.df[model.L](model.z[model.L])
    for l in range(model.L, 0, -1):
        model.dL_dw[l] = delta.T @ model.a[l - 1]
        model.dL_db[l] = delta.sum(0)
        if l > 1:  # nobody asks for the gradient of the input
            delta = (delta @ model.w(l)) * model.df[l - 1](model.z[l - 1]) * model.mask.get(l - 1, 1)


def gradients(model: MyNet) -> list[Tensor]:
    """What ``backpropagation`` found, in the order of ``model.parameters()``."""
    return [gradient for l in range(1, model.L + 1) for gradient in (model.dL_dw[l], model.dL_db[l])]
