"""The physical limit: the rate of an epoch, against the bare products and the peak rate of the processor.

Each core has a process of its own with one thread, as in ``make repro``.
"""

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import IO, cast

import joblib

from benchmarks.measure import Row, interleaved, row
from cifar2.params import Params

ROUNDS = 9
WORKS = ("peak", "products", "epoch")


def flops(n: int, n_l: tuple[int, ...]) -> int:
    """Operations of the matrix products of an epoch of ``n`` examples: forward, of the weights, and of the deltas.

    The deltas of the images themselves are not needed.
    """
    products = [2 * n * before * after for before, after in pairwise(n_l)]
    return 3 * sum(products) - products[0]


class Worker:
    """A process that works on one core (see ``benchmarks.worker``)."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.input, self.output = cast(IO[str], self.process.stdin), cast(IO[str], self.process.stdout)

    def begin(self, work: str) -> None:
        """Begin ``work``."""
        print(work, file=self.input, flush=True)

    def rate(self) -> float:
        """The rate that the work reached, in GFLOP/s."""
        return float(self.output.readline())


def rates(workers: Sequence[Worker], work: str) -> float:
    """The rate of all ``workers`` together at the same work, in GFLOP/s."""
    for worker in workers:
        worker.begin(work)
    return sum(worker.rate() for worker in workers)


def rows(params: Params) -> list[Row]:
    """The rows about the limit."""
    cores = joblib.cpu_count()
    workers = [Worker() for _ in range(cores)]
    counts = sorted({1, cores})
    turns = {f"{n} {work}": partial(rates, workers[:n], work) for n in counts for work in WORKS}
    found = interleaved(turns, ROUNDS)
    for worker in workers:
        worker.process.communicate()
    targets = {("products", "peak"): None, ("epoch", "peak"): None, ("epoch", "products"): ">= 0.92"}
    return [
        row(
            f"{ours}_vs_{rival}_{'one_core' if n == 1 else 'all_cores'}",
            f"rate of {ours} against {rival}, processes with one thread: {n}",
            found[f"{n} {ours}"],
            found[f"{n} {rival}"],
            "GFLOP/s",
            target if n == cores else None,
        )
        for n in counts
        for (ours, rival), target in targets.items()
    ]
