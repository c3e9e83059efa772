"""Prove backpropagation and SGD right before anything is trained with them; a failed check fails the stage."""

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, gradcheck, params, sgdcheck
from cifar2.dataset import splits
from cifar2.mynet import MyNet
from cifar2.report import figures

# isort: split
import torch

TRAIN = Path("data/prepared/train.safetensors")
METRICS = Path("metrics/verify.json")
FIGURE = Path("metrics/figures/gradient_errors.png")
# Training depends on this file.  It says what passed and no number, so that a last digit that differs on another
# machine does not retrain everything.
GATE = Path("data/verified.json")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    GATE.unlink(missing_ok=True)
    torch.set_num_threads(1)  # the last digit of a sum over a million numbers depends on how many threads share it
    everything = params.load()
    settings = everything.verify
    split = splits.load(TRAIN)
    x = splits.normalise(split.images[:512], everything.normalise.mean, everything.normalise.std).flatten(1)
    y = split.labels[:512]
    n_l = (x.shape[1], *everything.train.hidden, len(split.classes))
    activation = everything.train.activation
    full = gradcheck.Case(n_l, activation, "identity", "cross_entropy", 32)
    torch.manual_seed(settings.seed)
    network = MyNet(n_l, activation, "identity").double()

    cases = gradcheck.cases(settings.depths, settings.widths, settings.activations, settings.batch_sizes)
    checks = []
    by_layer: dict[tuple[int, str], list[gradcheck.Errors]] = {}
    for case in cases:
        layers = gradcheck.check(case, settings.seed)
        checks.append((case, gradcheck.worst(layers)))
        for layer, found in enumerate(layers, 1):
            by_layer.setdefault((layer, case.activation), []).append(found)
    on_images = gradcheck.check_directions(
        network, x[: full.batch_size].double(), y[: full.batch_size], full.loss, settings.directions, settings.seed
    )
    checks.append((full, on_images))
    trajectories = {
        f"SGD {name}, {str(dtype).removeprefix('torch.')}": sgdcheck.trajectory_difference(
            x.to(dtype), y, len(split.classes), hyperparameters, settings.sgd_steps, settings.seed
        )
        for name, hyperparameters in sgdcheck.VARIANTS.items()
        for dtype in (torch.float32, torch.float64)
    }

    in_place = {
        f"in place, {name}": sgdcheck.inplace_difference(
            x.double(), y, n_l, activation, hyperparameters, batch_size=100, epochs=2, seed=settings.seed, **regularised
        )
        for name, hyperparameters, regularised in [
            *((name, variant, {}) for name, variant in sgdcheck.VARIANTS.items()),
            ("dropout and label smoothing", sgdcheck.VARIANTS["momentum and weight decay"], sgdcheck.REGULARISED),
        ]
    }

    tolerances = gradcheck.Errors(settings.autograd_tolerance, settings.finite_difference_tolerance)
    failed = [
        f"{case}: relative error {error:.1e} against {method}, tolerance {tolerance:.1e}"
        for case, found in checks
        for method, error, tolerance in zip(found._fields, found, tolerances, strict=True)
        if not error <= tolerance
    ] + [f"{name}: differs from torch.optim.SGD by {d:.1e}" for name, d in trajectories.items() if d != 0]
    failed += [
        f"{name}: differs from backpropagation and SGD by {d:.1e} of the largest, tolerance {tolerances.autograd:.1e}"
        for name, d in in_place.items()
        if not d <= tolerances.autograd
    ]

    # The numbers and the picture are written also when a check failed: they show where.
    figures.write(FIGURE, figures.gradient_errors(checks, tolerances))
    files.write_json(
        METRICS,
        {
            "backprop_vs_autograd_max_rel_error": worst([found.autograd for _, found in checks]),
            "backprop_vs_finite_difference_max_rel_error": worst([found.finite_difference for _, found in checks]),
            "sgd_vs_torch_max_abs_diff": worst(list(trajectories.values())),
            "inplace_vs_backprop_and_sgd_max_rel_diff": worst(list(in_place.values())),
            "n_checks": len(checks) + len(trajectories) + len(in_place),
            "passed": not failed,
            "by_layer": [
                {"layer": layer, "activation": activation}
                | {method: worst([error]) for method, error in gradcheck.worst(found)._asdict().items()}
                for (layer, activation), found in sorted(by_layer.items())
            ],
        },
    )
    if failed:
        raise errors.UserError(f"verification failed in {len(failed)} of its checks; {failed[0]}")
    files.write_json(GATE, {"passed": [*(str(case) for case, _ in checks), *trajectories, *in_place]})


def worst(found: list[float]) -> float | None:
    """The largest error, or None where one is not even a number."""
    return max(found) if all(map(math.isfinite, found)) else None


if __name__ == "__main__":
    errors.run(main)
