"""Run the pipeline, several configurations at a time: ``make repro``, or ``make repro JOBS=n``.

DVC runs one stage after the other.  On two threads a perceptron trains less than twice as fast as on one, so that
training several side by side, each on its share of the cores, takes less time; the bits are the same.  Configurations
that would leave a core idle are left to the end, and have all cores; so are convolutions, whose bits depend on them.
"""

import argparse
import fcntl
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib

from cifar2 import errors, params


def shares(stale: list[str], jobs: int, cores: int) -> tuple[list[str], int]:
    """Which of the stages to run side by side when at most ``jobs`` may, and on how many threads each."""
    at_once = min(jobs, len(stale))
    if at_once < 2:
        return [], cores
    return stale[: len(stale) // at_once * at_once], max(1, cores // at_once)


def recover(folder: Path) -> None:
    """Delete DVC's list of what its processes read and write in ``folder``/.dvc if a power cut left it unreadable.

    DVC writes the list under a lock of its own, which is held here meanwhile: what is unreadable then stays so.
    """
    busy = folder / ".dvc/tmp/rwlock"
    if not busy.exists():
        return
    with busy.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            json.loads(busy.read_text())
        except ValueError:
            busy.unlink()
            print(f"removed {busy}, which an interrupted DVC left unreadable", flush=True)


def _dvc(*arguments: str) -> None:
    failed = subprocess.run(["dvc", *arguments]).returncode
    if failed:
        sys.exit(failed)


def _stale(names: list[str]) -> list[str]:
    """Those of the configurations ``names`` that have to be trained."""
    status = subprocess.run(["dvc", "status", "--json"], stdout=subprocess.PIPE, text=True)
    if status.returncode:
        sys.exit(status.returncode)
    return [stage for stage in json.loads(status.stdout) if stage.removeprefix("train@") in names]


def _run(stage: str, threads: int) -> bool:
    """Run one stage, line by line into the common log; False when it failed."""
    with subprocess.Popen(
        ["dvc", "--wait-for-lock", "repro", "--single-item", stage],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
    return process.returncode == 0


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return int(text)


def main() -> None:
    cores = joblib.cpu_count()  # that this process may use: by its affinity and its container's limit
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=_number, default=cores, help="configurations trained at a time (%(default)s)")
    jobs = parser.parse_args().jobs

    for folder in (Path(), Path("extended")):
        recover(folder)
    configs = params.load().configs
    _dvc("repro", "verify")
    perceptrons = [name for name, configuration in configs.items() if configuration.model == "mlp"]
    side_by_side, threads = shares(_stale(perceptrons), jobs, cores)
    with ThreadPoolExecutor(jobs) as pool:
        succeeded = list(pool.map(lambda stage: _run(stage, threads), side_by_side))
    failed = [stage for stage, success in zip(side_by_side, succeeded, strict=True) if not success]
    if failed:
        sys.exit(f"error: {', '.join(failed)} failed; what was said is above")
    _dvc("repro")


if __name__ == "__main__":
    errors.run(main)
