"""How a sweep scales: what a trial costs on one node of Ray and on two, against bare processes and ``dvc queue``.

Both nodes are on this machine and share its cores evenly, so that two have what one has: what differs is the cost of
there being two.  Trials that sleep show what Ray Tune costs, real ones what is left of the ideal.
"""

import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml

from benchmarks.measure import Row, row
from benchmarks.stages import ROOT
from cifar2 import dataset, params, sweep
from cifar2.trial import Report, Trials

SLEEP = 0.010
# The most that a trial may cost beside its work, in seconds, and the least share of the ideal that is left.
OVERHEAD, IDEAL = 0.030, 0.9
SHORT, REAL, MANY, QUEUED = 400, 16, 10_000, 8


class Took(NamedTuple):
    """How long trials took, in seconds: until the first had ended, and from there on until the last had."""

    start: float
    rest: float


def short(key: str) -> Iterator[Report]:
    """A trial that costs nothing but time."""
    time.sleep(SLEEP)
    yield Report(0.5, {"val_accuracy": 0.5}, True)


def real(settings: params.Params) -> Trials:
    """Trials that train a configuration for some seconds each, as a sweep does."""
    train = settings.train.model_copy(update={"seeds": settings.sweep.seeds})
    splits = [dataset.load(ROOT / f"data/prepared/{name}.safetensors") for name in ("train", "val")]
    configuration = settings.configs[settings.sweep.base].model_copy(update={"epochs": 8})
    return Trials(
        settings.model_copy(update={"train": train}), splits[0], splits[1], dict.fromkeys(_keys(REAL), configuration)
    )


def _keys(n: int) -> list[str]:
    return [f"{i:016x}" for i in range(n)]


def swept(run: Callable[[str], Iterator[Report]], n: int) -> Took:
    """What a sweep of ``n`` trials takes, on the cluster that RAY_ADDRESS names or on one of its own."""
    ends: list[float] = []
    start = time.perf_counter()
    sweep.run(_keys(n), run, {"cpu": 1}, None, lambda key, outcome: ends.append(time.perf_counter()))
    return Took(ends[0] - start, ends[-1] - ends[0])


@contextmanager
def cluster(n: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """``n`` nodes of Ray on this machine, each as ``ray start`` makes it, with its share of the cores and of memory.

    Meanwhile RAY_ADDRESS names them.
    """
    share = [f"--num-cpus={max(1, (os.cpu_count() or 1) // n)}", f"--object-store-memory={500 * 2**20}"]
    with ExitStack() as stack:
        address = ""
        nodes = []
        for _ in range(n):
            # Short, since sockets lie in it, whose paths have at most 107 characters.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True))
            role = [f"--address={address}"] if address else ["--head", "--port=0", "--include-dashboard=false"]
            command = ["ray", "start", "--block", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}", *role, *share]
            node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(_end, node)
            nodes.append(node)
            found = Path(folder, "ray_current_cluster")
            while not address:
                time.sleep(0.1)
                address = found.read_text().strip() if found.exists() else ""
        before = os.environ.get("RAY_ADDRESS")
        os.environ["RAY_ADDRESS"] = address
        try:
            yield nodes
        finally:
            del os.environ["RAY_ADDRESS"]
            if before:
                os.environ["RAY_ADDRESS"] = before


def kill(node: subprocess.Popen[bytes]) -> None:
    """End a node as a power failure would."""
    everything = [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]
    for process in everything:
        process.kill()
    node.wait()


def _end(node: subprocess.Popen[bytes]) -> None:
    node.terminate()
    node.wait()


if __name__ == "__main__":
    with cluster(2):
        print(swept(short, 200))
    print(swept(short, 200))
