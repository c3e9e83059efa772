"""Work on one core: for each line of input, ``peak``, ``products`` or ``epoch``, print the GFLOP/s reached.

A step in ``benchmarks.limit``, which runs as many of these as there are cores.
"""

import sys
from collections.abc import Callable
from functools import partial

import cifar2  # noqa: F401 (sets environment variables before torch is imported)

# isort: split
import torch

from benchmarks.epoch import TRAIN, ours, products
from benchmarks.limit import flops
from benchmarks.measure import seconds
from benchmarks.rivals import the_examples
from cifar2 import params
from cifar2.dataset import splits

# Rows and columns of the matrices behind the peak rate; larger ones are not faster.
SIZE = 2048
# So that what one process does at its start or end, while others do nothing, does not count.
EPOCHS = 3


def main() -> None:
    torch.set_num_threads(1)
    settings = params.load()
    split = splits.load(TRAIN)
    data = the_examples(settings, split)
    matrix, result = torch.randn(SIZE, SIZE), torch.empty(SIZE, SIZE)
    of_epoch = flops(len(data.y), (data.x[0].numel(), *settings.train.hidden, len(split.classes)))
    of_peak = 2 * SIZE**3
    works: dict[str, tuple[int, Callable[[], object]]] = {
        "peak": (of_peak, partial(torch.mm, matrix, matrix, out=result)),
        "products": (of_epoch, products(settings, data)),
        "epoch": (of_epoch, ours(settings, data, split.classes)),
    }
    for line in sys.stdin:
        n, work = works[line.strip()]
        repeats = round(EPOCHS * of_epoch / n)

        def repeated(work: Callable[[], object] = work, repeats: int = repeats) -> None:
            for _ in range(repeats):
                work()

        print(repeats * n / seconds(repeated) / 1e9, flush=True)


if __name__ == "__main__":
    main()
