"""All checks of the hand-written mathematics: the errors against each reference, and the tolerances."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from cifar2 import gradcheck, params, sgdcheck
from cifar2.gradcheck import Case, Errors
from cifar2.mynet import MyNet


class Comparison(NamedTuple):
    """Results compared with a reference.

    Attributes:
        metric: the name of the largest error in metrics/verify.json.
        reference: the other method.
        tolerance: the largest error that passes.
        errors: the error of each check, by the name of the check.
    """

    metric: str
    reference: str
    tolerance: float
    errors: Mapping[str, float]


class Checks(NamedTuple):
    """The results of all checks.

    Attributes:
        gradients: the largest errors of each network.
        by_layer: those of each layer with each activation function, over the small networks.
        tolerances: of both.
        comparisons: all checks, those of the gradients first.
    """

    gradients: list[tuple[Case, Errors]]
    by_layer: dict[tuple[int, str], Errors]
    tolerances: Errors
    comparisons: list[Comparison]

    @property
    def names(self) -> list[str]:
        """The names of all checks."""
        return list(dict.fromkeys(name for c in self.comparisons for name in c.errors))

    @property
    def failed(self) -> list[tuple[Comparison, str]]:
        """The checks whose error is above the tolerance, or not a number."""
        return [(c, name) for c in self.comparisons for name, error in c.errors.items() if not error <= c.tolerance]


def check_all(x: Tensor, y: Tensor, full: Case, verify: params.Verify) -> Checks:
    """Check backpropagation on small random networks and on the network that is trained, SGD, and the in-place epoch.

    Args:
        x: training images, float32, N x F.
        y: N labels.
        full: the network that is trained, and the loss and batch size to check it with.
        verify: the section of params.yaml.

    Raises:
        UserError: verify.seed gives no network that is away from the kinks of its ReLUs.
    """
    layers = {
        case: gradcheck.check(case, verify.seed)
        for case in gradcheck.cases(verify.depths, verify.widths, verify.activations, verify.batch_sizes)
    }
    torch.manual_seed(verify.seed)
    network = MyNet(full.n_l, full.activation, full.output_activation).double()
    batch = x[: full.batch_size].double(), y[: full.batch_size]
    on_images = gradcheck.check_directions(network, *batch, full.loss, verify.directions, verify.seed)
    cases = [*((case, gradcheck.worst(of_layers)) for case, of_layers in layers.items()), (full, on_images)]
    tolerances = Errors(verify.autograd_tolerance, verify.finite_difference_tolerance)
    sgd = sgdcheck.sgd_differences(x, y, full.n_l[-1], verify.sgd_steps, verify.seed)
    in_place = sgdcheck.inplace_differences(x, y, full.n_l, full.activation, verify.seed)
    comparisons = [
        Comparison(f"backprop_vs_{method}_max_rel_error", method, tolerance, {str(c): e[i] for c, e in cases})
        for i, (method, tolerance) in enumerate(tolerances._asdict().items())
    ]
    comparisons += [
        Comparison("sgd_vs_torch_max_abs_diff", "torch.optim.SGD", 0.0, sgd),
        Comparison(
            "inplace_vs_backprop_and_sgd_max_rel_diff", "backpropagation and SGD", verify.autograd_tolerance, in_place
        ),
    ]
    return Checks(cases, gradcheck.worst_by_layer(layers), tolerances, comparisons)


def largest(errors: Iterable[float]) -> float | None:
    """The largest error, or None if one is not a number."""
    errors = list(errors)
    return max(errors) if all(map(math.isfinite, errors)) else None
