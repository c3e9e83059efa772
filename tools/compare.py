"""Compare the metrics of the last run with the committed ones: ``make compare``.

The exit code is 1 if a metric differs by more than rounding. Outputs that are not bit-identical are listed.

The committed results come from an AMD processor. Others add up matrix products in another order, and training amplifies
the rounding, as another seed would. There, accuracies must be in their committed 95 % intervals.
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
    committed: Mapping[str, Any] | None, current: Mapping[str, Any] | None, where: str
) -> Iterator[str]:
    """One line for each accuracy outside the committed 95 % interval, and for a file that is missing or new."""
    if committed is None or current is None:
        yield from differences(committed, current, where)
        return
    intervals = {}
    if "test_accuracy_ci95" in committed:
        intervals["test_accuracy"] = committed["test_accuracy_ci95"]
    if "val_accuracy_se" in committed:
        mean, error = committed["val_accuracy"], committed["val_accuracy_se"]
        intervals["val_accuracy"] = mean - 2 * error, mean + 2 * error
    for key, (low, high) in intervals.items():
        if not low <= current[key] <= high:
            yield f"{where} {key}: {current[key]}, committed interval {low} to {high}"


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
    compared, by = (differences, "more than rounding") if is_amd() else (more_than_chance, "more than chance")
    different = [line for f in files for line in compared(committed[f], current[f], f)]

    before, now = hashes(_git("show", "HEAD:dvc.lock")), hashes(Path("dvc.lock").read_text())
    changed = [path for path in before | now if before.get(path) != now.get(path)]
    for path in changed:
        print(f"not bit-identical: {path} {now.get(path)}, committed {before.get(path)}")
    if different:
        sys.exit("\n".join([f"these metrics differ from the committed ones by {by}:", *different]))
    if not is_amd():
        print("This is no AMD processor: only accuracies were compared, with their committed 95 % intervals.")
    print(f"{len(files)} metrics files match the committed ones, and all but {len(changed)} of {len(now)} hashes")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    errors.run(main)
