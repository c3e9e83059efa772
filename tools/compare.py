"""Compare the metrics of the last run with the committed ones: ``make compare``.

The exit code is 1 if a metric differs by more than rounding. Outputs that are not bit-identical are listed.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from cifar2 import errors

# Accuracies change in steps of 1/2000, and losses are read to four digits. The errors of the gradient checks are far
# smaller; stage verify checks them against their own tolerances.
ROUNDING = 1e-6


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
    different = [line for f in files for line in differences(committed[f], current[f], f)]

    before, now = hashes(_git("show", "HEAD:dvc.lock")), hashes(Path("dvc.lock").read_text())
    changed = [path for path in before | now if before.get(path) != now.get(path)]
    for path in changed:
        print(f"not bit-identical: {path} {now.get(path)}, committed {before.get(path)}")
    if different:
        sys.exit("\n".join(["these metrics differ from the committed ones by more than rounding:", *different]))
    print(f"{len(files)} metrics files match the committed ones, and all but {len(changed)} of {len(now)} hashes")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    errors.run(main)
