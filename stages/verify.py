"""Verify backpropagation and SGD before anything is trained with them; a failed check fails the stage."""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, gradcheck, params, sgdcheck
from cifar2.dataset import splits
from cifar2.dataset.examples import Examples, examples
from cifar2.figures import canvas
from cifar2.figures import verify as figures
from cifar2.mynet import MyNet

# isort: split
import torch

# Training depends on this file.  It names the passed checks and has no number, so that a last digit that differs on
# another machine does not retrain everything.
GATE = Path("data/verified.json")
Layers = dict[gradcheck.Case, list[gradcheck.Errors]]


class Check(NamedTuple):
    """The comparison of a result with a reference.

    Attributes:
        name: the case.
        metric: the metric that shows the largest error of its kind.
        reference: the other method.
        error: the largest difference.
        tolerance: the largest error that passes.
    """

    name: str
    metric: str
    reference: str
    error: float
    tolerance: float


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    GATE.unlink(missing_ok=True)
    torch.set_num_threads(1)  # the last digit of a sum over a million numbers depends on the number of threads
    parameters = params.load()
    verify = parameters.verify
    split = splits.load(Path("data/prepared/train.safetensors"))
    split = splits.Split(split.x[:512], split.labels[:512], split.index[:512], split.classes)
    images = examples(split, parameters.normalise.mean, parameters.normalise.std)
    n_l = (images.x[0].numel(), *parameters.train.hidden, len(split.classes))
    network = gradcheck.Case(n_l, parameters.train.activation, "identity", "cross_entropy", 32)

    layers = {
        case: gradcheck.check(case, verify.seed)
        for case in gradcheck.cases(verify.depths, verify.widths, verify.activations, verify.batch_sizes)
    }
    cases = [(case, gradcheck.worst(of_layers)) for case, of_layers in layers.items()]
    cases.append((network, on_images(network, images, verify)))
    tolerances = gradcheck.Errors(verify.autograd_tolerance, verify.finite_difference_tolerance)
    checks = [
        *gradient_checks(cases, tolerances),
        *sgd_checks(images, len(split.classes), verify),
        *in_place_checks(images, network, verify),
    ]
    failed = [check for check in checks if not check.error <= check.tolerance]
    passed = list(dict.fromkeys(check.name for check in checks))

    # Numbers and figure are written also if a check failed: they show where.
    canvas.write(Path("metrics/figures/gradient_errors.png"), figures.gradient_errors(cases, tolerances))
    files.write_json(
        Path("metrics/verify.json"),
        {
            **{check.metric: largest(c.error for c in checks if c.metric == check.metric) for check in checks},
            "n_checks": len(passed),
            "passed": not failed,
            "by_layer": by_layer(layers),
        },
    )
    for check in failed:
        raise errors.UserError(
            f"verification failed in {len(failed)} of its checks; {check.name}: error {check.error:.1e} against "
            f"{check.reference}, tolerance {check.tolerance:g}"
        )
    files.write_json(GATE, {"passed": passed})


def on_images(case: gradcheck.Case, images: Examples, verify: params.Verify) -> gradcheck.Errors:
    """The errors of the full network on the first images."""
    torch.manual_seed(verify.seed)
    network = MyNet(case.n_l, case.activation, case.output_activation).double()
    x, y = images.x.flatten(1)[: case.batch_size].double(), images.y[: case.batch_size]
    return gradcheck.check_directions(network, x, y, case.loss, verify.directions, verify.seed)


def gradient_checks(
    cases: Iterable[tuple[gradcheck.Case, gradcheck.Errors]], tolerances: gradcheck.Errors
) -> Iterator[Check]:
    """Backpropagation against autograd and central differences: relative errors."""
    for case, found in cases:
        for method, error, tolerance in zip(found._fields, found, tolerances, strict=True):
            yield Check(str(case), f"backprop_vs_{method}_max_rel_error", method, error, tolerance)


def sgd_checks(images: Examples, n_classes: int, verify: params.Verify) -> Iterator[Check]:
    """SGD against torch.optim.SGD: bit-identical."""
    for name, hyperparameters in sgdcheck.VARIANTS.items():
        for dtype in (torch.float32, torch.float64):
            difference = sgdcheck.trajectory_difference(
                images.x.flatten(1).to(dtype), images.y, n_classes, hyperparameters, verify.sgd_steps, verify.seed
            )
            precision = str(dtype).removeprefix("torch.")
            yield Check(f"SGD {name}, {precision}", "sgd_vs_torch_max_abs_diff", "torch.optim.SGD", difference, 0.0)


def in_place_checks(images: Examples, case: gradcheck.Case, verify: params.Verify) -> Iterator[Check]:
    """The in-place epoch against backpropagation and SGD: relative to the largest parameter."""
    regularised = {**sgdcheck.VARIANTS["momentum and weight decay"], **sgdcheck.REGULARISED}
    variants: dict[str, dict[str, Any]] = {**sgdcheck.VARIANTS, "dropout and label smoothing": regularised}
    for name, settings in variants.items():
        difference = sgdcheck.inplace_difference(
            *(images.x.flatten(1).double(), images.y, case.n_l, case.activation),
            **(settings | {"batch_size": 100, "epochs": 2, "seed": verify.seed}),
        )
        metric, reference = "inplace_vs_backprop_and_sgd_max_rel_diff", "backpropagation and SGD"
        yield Check(f"in place, {name}", metric, reference, difference, verify.autograd_tolerance)


def by_layer(layers: Layers) -> list[dict[str, Any]]:
    """The largest errors of each layer with each activation function."""
    groups: dict[tuple[int, str], list[gradcheck.Errors]] = {}
    for case, of_layers in layers.items():
        for layer, found in enumerate(of_layers, 1):
            groups.setdefault((layer, case.activation), []).append(found)
    return [
        {"layer": layer, "activation": activation}
        | {method: largest([error]) for method, error in gradcheck.worst(found)._asdict().items()}
        for (layer, activation), found in sorted(groups.items())
    ]


def largest(found: Iterable[float]) -> float | None:
    """The largest error, or None if one is not a number."""
    values = list(found)
    return max(values) if all(map(math.isfinite, values)) else None


if __name__ == "__main__":
    errors.run(main)
