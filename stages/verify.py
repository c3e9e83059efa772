"""Verify backpropagation and SGD before anything is trained with them; a failed check fails the stage."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, gradcheck, params, verification
from cifar2.dataset import splits
from cifar2.dataset.examples import examples
from cifar2.figures import canvas
from cifar2.figures import verify as figures
from cifar2.mynet import MyNet
from cifar2.verification import largest

# isort: split
import torch

# Training depends on this file.  It names the passed checks and has no number, so that a last digit that differs on
# another machine does not retrain everything.
GATE = Path("data/verified.json")
# Training images behind the checks.
N_IMAGES = 512


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    GATE.unlink(missing_ok=True)
    torch.set_num_threads(1)  # the last digit of a sum over a million numbers depends on the number of threads
    parameters = params.load()
    split = splits.load(Path("data/prepared/train.safetensors"))
    # Some from everywhere: your own images are in the order of their classes.
    at = torch.linspace(0, len(split.x) - 1, min(len(split.x), N_IMAGES), dtype=torch.float64).long()
    split = splits.Split(split.x[at], split.labels[at], split.index[at], split.classes)
    images = examples(split, parameters.normalise.mean, parameters.normalise.std)
    x = images.x.flatten(1)
    n_l = (x.shape[1], *parameters.train.hidden, len(split.classes))
    full = gradcheck.Case(n_l, parameters.train.activation, "identity", "cross_entropy", 32)
    checks = verification.check_all(x, images.y, full, parameters.verify)

    torch.manual_seed(parameters.verify.seed)
    untrained = MyNet(n_l, full.activation, full.output_activation)
    with torch.no_grad():
        probabilities = torch.softmax(untrained(x).double(), 1)
    by_class = dict(zip(split.classes, probabilities[0].tolist(), strict=True))
    hidden = {l: untrained.a[l][0] for l in range(1, untrained.L)}

    # Numbers and figure are written also if a check failed: they show where.
    figure = figures.gradient_errors(checks.gradients, checks.tolerances)
    canvas.write(Path("metrics/figures/gradient_errors.png"), figure)
    figure = figures.untrained(split.x[0], hidden, by_class, split.classes[split.labels[0]])
    canvas.write(Path("metrics/figures/untrained.png"), figure)
    rows = [
        {"layer": layer, "activation": activation}
        | {method: largest([error]) for method, error in found._asdict().items()}
        for (layer, activation), found in checks.by_layer.items()
    ]
    counts = {"n_checks": len(checks.names), "passed": not checks.failed}
    largest_errors = {c.metric: largest(c.errors.values()) for c in checks.comparisons}
    files.write_json(Path("metrics/verify.json"), {**largest_errors, **counts, "by_layer": rows, "untrained": by_class})
    for comparison, name in checks.failed:
        raise errors.UserError(
            f"verification failed in {len(checks.failed)} of its checks; {name}: error {comparison.errors[name]:.1e} "
            f"against {comparison.reference}, tolerance {comparison.tolerance:g}"
        )
    files.write_json(GATE, {"passed": checks.names})


if __name__ == "__main__":
    errors.run(main)
