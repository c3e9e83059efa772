"""Verify backpropagation and SGD before anything is trained with them; a failed check fails the stage."""

import argparse
import math
import sys
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, gradcheck, params, sgdcheck
from cifar2.dataset import splits
from cifar2.dataset.examples import examples
from cifar2.figures import canvas
from cifar2.figures import verify as figures
from cifar2.mynet import MyNet

# isort: split
import torch

# Training depends on this file.  It names the passed checks and has no number, so that a last digit that differs on
# another machine does not retrain everything.
GATE = Path("data/verified.json")


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
    errors: dict[str, float]


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    GATE.unlink(missing_ok=True)
    torch.set_num_threads(1)  # the last digit of a sum over a million numbers depends on the number of threads
    parameters = params.load()
    verify = parameters.verify
    split = splits.load(Path("data/prepared/train.safetensors"))
    split = splits.Split(split.x[:512], split.labels[:512], split.index[:512], split.classes)
    images = examples(split, parameters.normalise.mean, parameters.normalise.std)
    x, y = images.x.flatten(1), images.y
    n_l = (x.shape[1], *parameters.train.hidden, len(split.classes))
    full = gradcheck.Case(n_l, parameters.train.activation, "identity", "cross_entropy", 32)

    layers = {
        case: gradcheck.check(case, verify.seed)
        for case in gradcheck.cases(verify.depths, verify.widths, verify.activations, verify.batch_sizes)
    }
    torch.manual_seed(verify.seed)
    network = MyNet(n_l, full.activation, full.output_activation).double()
    batch = x[: full.batch_size].double(), y[: full.batch_size]
    on_images = gradcheck.check_directions(network, *batch, full.loss, verify.directions, verify.seed)
    cases = [*((case, gradcheck.worst(of_layers)) for case, of_layers in layers.items()), (full, on_images)]
    tolerances = gradcheck.Errors(verify.autograd_tolerance, verify.finite_difference_tolerance)
    sgd = sgdcheck.sgd_differences(x, y, len(split.classes), verify.sgd_steps, verify.seed)
    in_place = sgdcheck.inplace_differences(x, y, n_l, full.activation, verify.seed)
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
    failed = [(c, name, error) for c in comparisons for name, error in c.errors.items() if not error <= c.tolerance]
    names = list(dict.fromkeys(name for c in comparisons for name in c.errors))

    # Numbers and figure are written also if a check failed: they show where.
    canvas.write(Path("metrics/figures/gradient_errors.png"), figures.gradient_errors(cases, tolerances))
    files.write_json(
        Path("metrics/verify.json"),
        {
            **{c.metric: largest(c.errors.values()) for c in comparisons},
            "n_checks": len(names),
            "passed": not failed,
            "by_layer": [
                {"layer": layer, "activation": activation}
                | {method: largest([error]) for method, error in found._asdict().items()}
                for (layer, activation), found in gradcheck.worst_by_layer(layers).items()
            ],
        },
    )
    for comparison, name, error in failed:
        raise errors.UserError(
            f"verification failed in {len(failed)} of its checks; {name}: error {error:.1e} against "
            f"{comparison.reference}, tolerance {comparison.tolerance:g}"
        )
    files.write_json(GATE, {"passed": names})


def largest(found: Collection[float]) -> float | None:
    """The largest error, or None if one is not a number."""
    return max(found) if all(map(math.isfinite, found)) else None


if __name__ == "__main__":
    errors.run(main)
