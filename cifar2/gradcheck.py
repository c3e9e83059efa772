"""Backpropagation, autograd and central differences side by side.

A wrong gradient often still trains, only worse; comparing it with two independent methods is how one finds out.
Everything here runs in float64, where a wrong formula differs from an inexact sum by many orders of magnitude.
(Bishop, "Pattern Recognition and Machine Learning", section 5.3.3.)
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from cifar2.errors import UserError
from cifar2.losses import LOSSES
from cifar2.mynet import MyNet, backpropagation, gradients

# The error of a central difference is about step^2 from curvature plus 1e-16 / step from rounding.  This step is
# smaller than the best one for smooth functions, so that its two evaluations rarely lie on different sides of a ReLU's
# kink.  If they do, there is no slope to compare: ``check`` draws another network, ``check_directions`` leaves the
# image out.  An even smaller step would only trade the kink for rounding.
STEP = 1e-6

# About one small network in a thousand has to be replaced.
MAX_DRAWS = 100


class KinkError(Exception):
    """The two evaluations of a central difference lie on different sides of a ReLU's kink.

    The signs of z decide, never the size of an error, so a wrong gradient has no excuse.

    Attributes:
        smooth: for each example of the batch, whether no ReLU crosses its kink, bool, N.
    """

    def __init__(self, smooth: Tensor) -> None:
        super().__init__(f"{(~smooth).sum()} of {len(smooth)} examples take a ReLU across its kink")
        self.smooth = smooth


class Case(NamedTuple):
    """One network, loss and batch to check."""

    n_l: tuple[int, ...]
    activation: str
    output_activation: str
    loss: str
    batch_size: int

    def __str__(self) -> str:
        layers = "-".join(map(str, self.n_l))
        return f"{layers} {self.activation}, {self.output_activation} output, {self.loss}, batch {self.batch_size}"


class Errors(NamedTuple):
    """The largest relative errors of backpropagation against two other methods."""

    autograd: float
    finite_difference: float


def cases(
    depths: Sequence[int], widths: Sequence[int], activations: Sequence[str], batch_sizes: Sequence[int]
) -> list[Case]:
    """Every combination with each loss, once: 5 inputs, 3 outputs, and with 1-D targets 1 output."""
    grid = [(d, w, f, n) for d in depths for w in widths for f in activations for n in batch_sizes]
    combinations = []
    for depth, width, activation, batch_size in grid:
        hidden = (width,) * (depth - 1)
        # A single layer with identity output is the same network whatever the activation of hidden layers.
        used = activation if hidden else "identity"
        combinations += [
            Case((5, *hidden, 3), activation, activation, "squared_error", batch_size),
            Case((5, *hidden, 1), used, "identity", "squared_error", batch_size),
            Case((5, *hidden, 3), used, "identity", "cross_entropy", batch_size),
        ]
    return list(dict.fromkeys(combinations))


def check(case: Case, seed: int) -> list[Errors]:
    """Compare every partial derivative on a random network and batch, and return the errors of layers 1 .. L.

    If a ReLU crosses its kink, another network and batch are drawn.

    Raises:
        UserError: a ReLU crosses its kink in ``MAX_DRAWS`` networks in a row.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(MAX_DRAWS):
        model, x, y_true = _random_problem(case, generator)
        by_hand = by_backpropagation(model, x, y_true, case.loss)
        autograd = _by_layer(by_hand, by_autograd(model, x, y_true, case.loss))
        with suppress(KinkError):
            differences = _by_layer(by_hand, by_finite_differences(model, x, y_true, case.loss))
            return [Errors(*errors) for errors in zip(autograd, differences, strict=True)]
    raise UserError(
        f"params.yaml: verify.seed gives {MAX_DRAWS} networks {case} in a row with a ReLU on its kink; choose another"
    )


def _random_problem(case: Case, generator: torch.Generator) -> tuple[MyNet, Tensor, Tensor]:
    """A random network for ``case``, with a batch and its targets."""
    model = MyNet(case.n_l, case.activation, case.output_activation).double()
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter.shape[-1] ** -0.5  # keeps z near 1: no saturated unit, hence no gradient near zero
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(case.batch_size, case.n_l[0], generator=generator, dtype=torch.float64)
    if case.loss == "cross_entropy":
        y_true = torch.randint(case.n_l[-1], (case.batch_size,), generator=generator)
    else:
        shape = (case.batch_size,) if case.n_l[-1] == 1 else (case.batch_size, case.n_l[-1])
        y_true = torch.randn(shape, generator=generator, dtype=torch.float64)
    return model, x, y_true


def worst(errors: Iterable[Errors]) -> Errors:
    """The largest error of each kind; NaN counts as larger than any number."""
    largest = torch.tensor(list(errors), dtype=torch.float64).max(0).values.tolist()
    return Errors(*largest)


def worst_by_layer(errors: Mapping[Case, Sequence[Errors]]) -> dict[tuple[int, str], Errors]:
    """The largest errors of each layer with each activation function, in this order, from those of ``check``."""
    groups: dict[tuple[int, str], list[Errors]] = {}
    for case, of_layers in errors.items():
        for layer, found in enumerate(of_layers, 1):
            groups.setdefault((layer, case.activation), []).append(found)
    return {group: worst(groups[group]) for group in sorted(groups)}


def check_directions(model: MyNet, x: Tensor, y_true: Tensor, loss: str, n: int, seed: int) -> Errors:
    """Compare every derivative with autograd, and the slope along ``n`` random directions with central differences.

    A direction costs two forward passes whatever the size of the network, and an error in the gradient of any parameter
    changes the slope along it.  Examples in which a ReLU crosses its kink are left out for that direction.

    Raises:
        UserError: a direction leaves no example.
    """
    generator = torch.Generator().manual_seed(seed)
    slopes, differences = [], []
    for _ in range(n):
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in model.parameters()]
        length = torch.stack([(d * d).sum() for d in direction]).sum().sqrt()
        # Spread over a million parameters, a direction of length 1 would change the loss too little to measure.
        direction = [100 * d / length for d in direction]
        slope, difference = _compare_slopes(model, x, y_true, loss, direction)
        slopes.append(slope)
        differences.append(difference)
    by_hand = by_backpropagation(model, x, y_true, loss)
    return Errors(
        relative_error(by_hand, by_autograd(model, x, y_true, loss)),
        relative_error(slopes, differences),
    )


def _compare_slopes(
    model: MyNet, x: Tensor, y_true: Tensor, loss: str, direction: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """The slope along ``direction``, by hand and by central difference, over the examples that cross no kink."""
    while len(x):
        by_hand = by_backpropagation(model, x, y_true, loss)
        slope = torch.stack([(g * d).sum() for g, d in zip(by_hand, direction, strict=True)]).sum()
        try:
            return slope, _central_difference(model, x, y_true, loss, list(model.parameters()), direction)
        except KinkError as kink:
            x, y_true = x[kink.smooth], y_true[kink.smooth]
    raise UserError("params.yaml: with verify.seed every image has a ReLU on its kink; choose another")


def by_backpropagation(model: MyNet, x: Tensor, y_true: Tensor, loss: str) -> list[Tensor]:
    """The gradient of each parameter, by hand."""
    backpropagation(model, y_true, model(x), loss)
    return gradients(model)


def by_autograd(model: MyNet, x: Tensor, y_true: Tensor, loss: str) -> list[Tensor]:
    """The gradient of each parameter, by PyTorch."""
    return list(torch.autograd.grad(_loss(model, x, y_true, loss), list(model.parameters())))


def by_finite_differences(model: MyNet, x: Tensor, y_true: Tensor, loss: str) -> list[Tensor]:
    """The gradient of each parameter, by moving one entry at a time up and down by ``STEP``.

    Raises:
        KinkError: a ReLU crosses its kink.
    """
    derivatives = []
    for parameter in model.parameters():
        slopes = []
        for i in range(parameter.numel()):
            direction = torch.zeros_like(parameter)
            direction.view(-1)[i] = 1
            slopes.append(_central_difference(model, x, y_true, loss, [parameter], [direction]))
        derivatives.append(torch.stack(slopes).view_as(parameter))
    return derivatives


@torch.no_grad()
def _central_difference(
    model: MyNet, x: Tensor, y_true: Tensor, loss: str, parameters: list[Tensor], direction: list[Tensor]
) -> Tensor:
    before = [parameter.clone() for parameter in parameters]
    _move(parameters, direction, STEP)
    above, active_above = _loss(model, x, y_true, loss), _active(model)
    _move(parameters, direction, -2 * STEP)
    below, active_below = _loss(model, x, y_true, loss), _active(model)
    for parameter, value in zip(parameters, before, strict=True):
        parameter.copy_(value)
    smooth = (active_above == active_below).all(1)
    if not smooth.all():
        raise KinkError(smooth)
    return (above - below) / (2 * STEP)


def _move(parameters: list[Tensor], direction: list[Tensor], step: float) -> None:
    for parameter, d in zip(parameters, direction, strict=True):
        parameter.add_(d, alpha=step)


def _active(model: MyNet) -> Tensor:
    """Whether each ReLU let z through in the last forward pass, one row per example."""
    relus = [model.z[l] > 0 for l in model.z if model.f[l] is torch.relu]
    return torch.cat(relus, 1) if relus else torch.ones(len(model.a[0]), 0, dtype=torch.bool)


def _loss(model: MyNet, x: Tensor, y_true: Tensor, loss: str) -> Tensor:
    return LOSSES[loss].value(y_true, model(x))


def relative_error(values: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, relative to the largest entry of all; 0 if all entries are zero.

    The error of a central difference is the same in every entry, so an entry near zero has no small error relative to
    itself.
    """
    # torch's max keeps a NaN; Python's would lose it, and the check would pass.
    return _relative_errors(values, expected).max().item()


def _relative_errors(values: Sequence[Tensor], expected: Sequence[Tensor]) -> Tensor:
    """The largest difference of each tensor, relative to the largest entry of all."""
    differences = torch.stack([(a - b).abs().max() for a, b in zip(values, expected, strict=True)])
    scale = torch.stack([t.abs().max() for t in (*values, *expected)]).max()
    return differences / scale if scale != 0 else differences


def _by_layer(values: Sequence[Tensor], expected: Sequence[Tensor]) -> list[float]:
    """The relative error of each layer, whose weights and biases follow each other."""
    return _relative_errors(values, expected).view(-1, 2).max(1).values.tolist()
