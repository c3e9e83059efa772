"""Compare the metrics of the last run with the committed ones: ``make compare``.

Exit code 1 when a metric differs by more than rounding; when only bits differ, the files whose hashes do are named.
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

# Accuracies move in steps of 1/2000 and losses are read to four digits: a millionth is neither.  The errors of the
# gradient checks lie far below it; stage verify holds them to their own tolerances.
ROUNDING = 1e-6


def differences(committed: object, found: object, where: str) -> Iterator[str]:
    """One line for each value that differs by more than rounding, is missing or is new."""
    if isinstance(committed, dict) and isinstance(found, dict):
        for key in committed | found:
            yield from differences(committed.get(key), found.get(key), f"{where} {key}")
    elif isinstance(committed, list) and isinstance(found, list) and len(committed) == len(found):
        for i, (a, b) in enumerate(zip(committed, found, strict=True)):
            yield from differences(a, b, f"{where}[{i}]")
    elif isinstance(committed, int | float) and isinstance(found, int | float):
        if not math.isclose(committed, found, rel_tol=ROUNDING, abs_tol=ROUNDING):
            yield f"{where}: {found}, committed {committed}"
    elif committed != found:
        yield f"{where}: {found}, committed {committed}"


def hashes(lock: str) -> dict[str, str]:
    """The MD5 of every output that dvc.lock names."""
    stages = yaml.safe_load(lock)["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}


def _committed(path: str) -> str:
    return subprocess.run(["git", "show", f"HEAD:{path}"], check=True, capture_output=True, text=True).stdout


def main() -> None:
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD", "metrics"],
        check=True,
        capture_output=True,
        text=True,
    )
    files = sorted(
        {f for f in listed.stdout.split() if f.endswith(".json")} | set(map(str, Path("metrics").rglob("*.json")))
    )
    committed = {f: json.loads(_committed(f)) if f in listed.stdout.split() else None for f in files}
    found = {f: json.loads(Path(f).read_text()) if Path(f).exists() else None for f in files}
    different = [line for f in files for line in differences(committed[f], found[f], f)]

    before, now = hashes(_committed("dvc.lock")), hashes(Path("dvc.lock").read_text())
    changed = [path for path in before | now if before.get(path) != now.get(path)]
    for path in changed:
        print(f"other bits: {path} {now.get(path)}, committed {before.get(path)}")
    if different:
        sys.exit("\n".join(["these metrics differ from the committed ones by more than rounding:", *different]))
    print(f"{len(files)} metrics files agree with the committed ones, and all but {len(changed)} of {len(now)} hashes")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    errors.run(main)
