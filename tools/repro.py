"""Run the pipeline, several stages at once: ``make repro``, or ``make repro JOBS=n``.

DVC runs one stage after another, and most stages use one core.  Here a stage starts as soon as all that it depends on
has ended and a core is free; of several, the one with the most work from it to the end of the pipeline, or else the one
that most stages wait for.  Results are the same, to the bit.
"""

import argparse
import fcntl
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import joblib

from cifar2 import errors, files, params

# When each stage last ran here, beside DVC's own scratch files.
TIMELINE = Path(".dvc/tmp/timeline.json")

Graph = Mapping[str, set[str]]


class Ran(NamedTuple):
    """The last run of a stage: the cores that it had, and its start and end, in seconds from that of the program."""

    cores: int
    start: float
    end: float


def graph(dot: str) -> dict[str, set[str]]:
    """The stages of this pipeline, each with those that it depends on, from the output of ``dvc dag --dot``."""
    found: dict[str, set[str]] = {}
    for line in dot.splitlines():
        names = re.findall(r'"([^":]+)"', line)
        for name in names:
            found.setdefault(name, set())
        if len(names) == 2:
            found[names[1]].add(names[0])
    return found


def to_run(stages: Graph, changed: Iterable[str]) -> dict[str, set[str]]:
    """The part of the graph that starts from the ``changed`` stages: what may have to run."""
    found = set(changed)
    for stage in TopologicalSorter(stages).static_order():
        if stages[stage] & found:
            found.add(stage)
    return {stage: stages[stage] & found for stage in stages if stage in found}


def works(stages: Iterable[str], settings: params.Params, timeline: Mapping[str, Ran]) -> dict[str, float]:
    """The core-seconds of each stage: as in its last run, or a guess."""
    found = {}
    for stage in stages:
        configuration = settings.configs.get(stage.removeprefix("train@"))
        epochs = (configuration.epochs or settings.train.epochs) if configuration else 10
        found[stage] = float(epochs * (len(settings.train.seeds) if configuration else 1))
        if stage in timeline:
            cores, start, end = timeline[stage]
            found[stage] = cores * (end - start)
    return found


def ways(stages: Graph, work: Mapping[str, float]) -> dict[str, float]:
    """The work from the start of each stage to the end of the pipeline, on the longest way."""
    found: dict[str, float] = dict(work)
    for stage in reversed(list(TopologicalSorter(stages).static_order())):
        for before in stages[stage]:
            found[before] = max(found[before], work[before] + found[stage])
    return found


def run_all(
    stages: Graph, work: Mapping[str, float], cores: int, jobs: int, run: Callable[[str, int], bool]
) -> list[str]:
    """Run all stages, and return those that failed; after a failure no other starts.

    Args:
        stages: the graph of the stages.
        work: the core-seconds of each.
        cores: number of cores to share out.
        jobs: number of stages at once, at most.
        run: runs a stage on a number of cores, and returns whether it succeeded.
    """
    way, total = ways(stages, work), sum(work.values())
    after = {stage: len(to_run(stages, [stage])) for stage in stages}
    sorter = TopologicalSorter(stages)
    sorter.prepare()
    ready: list[str] = []
    failed: list[str] = []
    running: dict[Future[bool], tuple[str, int]] = {}
    free = cores
    with ThreadPoolExecutor(jobs) as pool:
        while running or (sorter.is_active() and not failed):
            ready = sorted([*ready, *sorter.get_ready()], key=lambda stage: (-way[stage], -after[stage]))
            while ready and free and len(running) < jobs and not failed:
                stage = ready.pop(0)
                # A stage that would outlast the others gets more than one core.
                share = min(free, max(cores // jobs, math.ceil(work[stage] * cores / total)))
                running[pool.submit(run, stage, share)] = stage, share
                free -= share
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                stage, share = running.pop(done)
                free += share
                if done.result():
                    sorter.done(stage)
                else:
                    failed.append(stage)
    return failed


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


def _output(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _read(process: subprocess.Popen[str]) -> str:
    printed, _ = process.communicate()
    if process.returncode:
        sys.exit(process.returncode)
    return printed


def _run(timeline: dict[str, Ran], began: float, stage: str, cores: int) -> bool:
    """Run one stage and print its log line by line; returns whether it succeeded, and notes when it ran."""
    start, ran = time.monotonic(), False
    with subprocess.Popen(
        ["dvc", "--wait-for-lock", "repro", "--single-item", stage],
        env=os.environ | {"OMP_NUM_THREADS": str(cores)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            ran = ran or line.startswith("Running stage")
    if ran and process.returncode == 0:
        timeline[stage] = Ran(cores, start - began, time.monotonic() - began)
    return process.returncode == 0


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1")
    return int(text)


def main() -> None:
    began = time.monotonic()
    cores = joblib.cpu_count()  # available to this process: by its affinity and its container's limit
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=_number, default=cores, help="stages at once (%(default)s)")
    jobs = parser.parse_args().jobs

    settings = params.load()
    for folder in (Path(), Path("extended")):
        recover(folder)
    dag, status = _output("dvc", "dag", "--dot"), _output("dvc", "status", "--json")
    stages, changed = graph(_read(dag)), json.loads(_read(status))
    stages = to_run(stages, stages.keys() & changed)
    timeline: dict[str, Ran] = {}
    with suppress(errors.UserError):  # there is none yet
        timeline |= {stage: Ran(*ran) for stage, ran in files.read_json(TIMELINE).items()}
    work = works(stages, settings, timeline)
    failed = run_all(stages, work, max(cores, jobs), jobs, partial(_run, timeline, began))
    files.write_json(TIMELINE, timeline)
    if failed:
        sys.exit(f"error: {', '.join(sorted(failed))} failed; see above")
    if not stages:
        print("Nothing has changed: all stages are up to date.")


if __name__ == "__main__":
    errors.run(main)
