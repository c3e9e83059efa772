"""Run the pipeline, training several configurations in parallel: ``make repro``, or ``make repro JOBS=n``.

DVC runs one stage after another. A perceptron trains less than twice as fast on two threads as on one, so training
several in parallel takes less time, with bit-identical results. Configurations that would leave a core idle run at the
end, on all cores; so do CNNs, whose results depend on the number of threads.
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
    """The stages to run in parallel, at most ``jobs`` at once, and the number of threads of each."""
    at_once = min(jobs, len(stale))
    if at_once < 2:
        return [], cores
    return stale[: len(stale) // at_once * at_once], max(1, cores // at_once)


def recover(folder: Path) -> None:
    """Delete DVC's list of files in use in ``folder``/.dvc if a power cut left it unreadable.

    DVC writes the list while it holds a lock; this holds the lock too, so an unreadable list is not being written.
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
    """The train stages of the configurations ``names`` that are stale."""
    status = subprocess.run(["dvc", "status", "--json"], stdout=subprocess.PIPE, text=True)
    if status.returncode:
        sys.exit(status.returncode)
    return [stage for stage in json.loads(status.stdout) if stage.removeprefix("train@") in names]


def _run(stage: str, threads: int) -> bool:
    """Run one stage and print its log line by line; returns whether it succeeded."""
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
    cores = joblib.cpu_count()  # available to this process: by its affinity and its container's limit
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=_number, default=cores, help="configurations trained in parallel (%(default)s)")
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
        sys.exit(f"error: {', '.join(failed)} failed; see above")
    _dvc("repro")


if __name__ == "__main__":
    errors.run(main)
