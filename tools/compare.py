"""Compare the metrics of the last run with the committed ones: ``make compare``.

The exit code is 1 if a metric differs by more than rounding. Outputs that are not bit-identical are listed.

The committed results come from an AMD processor. Others add up matrix products in another order, and training amplifies
the rounding, as another seed would. There, accuracies must be in the range that another seed would give.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from cifar2 import errors

# Accuracies change in steps of 1/2000, and losses are read to four digits. The errors of the gradient checks are far
# smaller; stage verify checks them against their own tolerances.
ROUNDING = 1e-6
# The processor of the committed results, by its name in Linux's list of processors.
VENDOR, PROCESSORS = "AuthenticAMD", Path("/proc/cpuinfo")


def differences(committed: object, current: object, where: str) -> Iterator[str]:
    """One line for each value that differs by more than rounding, is missing or is new."""
    if isinstance(committed, dict) and isinstance(current, dict):
        for key in committed | current:
            yield from differences(committed.get(key), current.get(key), f"{where} {key}")
    elif isinstance(committed, list) and isinstance(current, list) and len(committed) == len(current):
        for i, (a, b) in enumerate(zip(committed, current, strict=True)):
            yield from differences(a, b, f"{where}[{i}]")
    elif isinstance(committed, int | float) and isinstance(current, int | float):
        if not math.isclose(committed, current, rel_tol=ROUNDING, abs_tol=ROUNDING):
            yield f"{where}: {current}, committed {committed}"
    elif committed != current:
        yield f"{where}: {current}, committed {committed}"


def more_than_chance(
    committed: Mapping[str, Any] | None, current: Mapping[str, Any] | None, where: str, one_run: Mapping[str, float]
) -> Iterator[str]:
    """One line for each accuracy that another seed would hardly give, and for a file that is missing or new.

    The difference of two estimates varies by the square root of 2 times as much as each.

    Args:
        committed: the content of a metrics file in the last commit.
        current: its content now.
        where: its name.
        one_run: how far a new run of a configuration may lie from the mean, by the committed prediction intervals.
    """
    if committed is None or current is None:
        yield from differences(committed, current, where)
        return
    ranges = {}
    if "test_accuracy_ci95" in committed:
        low, high = committed["test_accuracy_ci95"]
        ranges["test_accuracy"] = math.sqrt(2) * (high - low) / 2
        if committed["n_seeds"] == 1:
            ranges["test_accuracy"] = max(ranges["test_accuracy"], one_run.get(committed["config"], 0))
    if "val_accuracy_se" in committed:
        ranges["val_accuracy"] = math.sqrt(2) * 2 * committed["val_accuracy_se"]
    for key, most in ranges.items():
        if not abs(current[key] - committed[key]) <= most:
            yield f"{where} {key}: {current[key]}, committed {committed[key]} ± {most:.4f}"


def is_amd() -> bool:
    """Whether this processor is of the kind that the committed results come from."""
    return PROCESSORS.exists() and VENDOR in PROCESSORS.read_text()


def hashes(lock: str) -> dict[str, str]:
    """The MD5 of every output that dvc.lock names."""
    stages = yaml.safe_load(lock)["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


def main() -> None:
    listed = _git("ls-tree", "-r", "--name-only", "HEAD", "metrics").split()
    files = sorted({f for f in listed if f.endswith(".json")} | set(map(str, Path("metrics").rglob("*.json"))))
    committed = {f: json.loads(_git("show", f"HEAD:{f}")) if f in listed else None for f in files}
    current = {f: json.loads(Path(f).read_text()) if Path(f).exists() else None for f in files}
    if is_amd():
        by, different = "rounding", [line for f in files for line in differences(committed[f], current[f], f)]
    else:
        intervals = {c["config"]: c["one_new_run_pi95"] for c in committed.values() if c and c.get("one_new_run_pi95")}
        one_run = {config: (high - low) / 2 for config, (low, high) in intervals.items()}
        by, different = (
            "chance",
            [line for f in files for line in more_than_chance(committed[f], current[f], f, one_run)],
        )

    before, now = hashes(_git("show", "HEAD:dvc.lock")), hashes(Path("dvc.lock").read_text())
    changed = [path for path in before | now if before.get(path) != now.get(path)]
    for path in changed:
        print(f"not bit-identical: {path} {now.get(path)}, committed {before.get(path)}")
    if different:
        sys.exit("\n".join([f"these metrics differ from the committed ones by more than {by}:", *different]))
    if not is_amd():
        print("This is not an AMD processor: accuracies may differ from the committed ones as between two seeds.")
    print(f"{len(files)} metrics files match the committed ones, and all but {len(changed)} of {len(now)} hashes")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    errors.run(main)
