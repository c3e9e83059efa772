"""Compare the variants of the ablation with their base, image by image and seed by seed on the validation set."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.evaluation import summary
from cifar2.evaluation.uncertainty import estimate

VALIDATED = Path("data/validated")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    groups = [group for _, group in params.load().extended.ablation]
    # The intervals of all differences hold together.
    n = sum(len(group.changes) for group in groups)
    rows = []
    for group in groups:
        base = summary.load(VALIDATED / f"{group.base}.safetensors").correct.double()
        rows.append((group.base, group.base, *estimate(base)[:2], None, None, None, None))
        for name in group.changes:
            variant = summary.load("extended" / VALIDATED / f"{name}.safetensors").correct.double()
            difference = estimate(variant - base)
            rows.append((group.base, name, *estimate(variant)[:2], *difference[:2], *difference.interval(n)))
    columns = ("base", "name", "val_accuracy", "val_accuracy_se", "difference", "difference_se", "low", "high")
    files.write_csv(Path("extended/metrics/ablation.csv"), columns, rows)


if __name__ == "__main__":
    errors.run(main)
