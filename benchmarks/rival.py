"""Train a rival, one epoch per line of input, and print its seconds: ``python -m benchmarks.rival NAME``."""

import os
import sys
from pathlib import Path

import cifar2  # noqa: F401 (sets the variables that are deleted below)

# isort: split
# Plain PyTorch has none of the variables that this project sets.
for name in ("MKL_CBWR", "THP_MEM_ALLOC_ENABLE"):
    del os.environ[name]

from benchmarks.measure import seconds  # noqa: E402
from benchmarks.rivals import epoch_of  # noqa: E402
from cifar2 import params  # noqa: E402
from cifar2.dataset import splits  # noqa: E402


def main() -> None:
    epoch = epoch_of(sys.argv[1], params.load(), splits.load(Path("data/prepared/train.safetensors")))
    for _ in sys.stdin:
        print(seconds(epoch), flush=True)


if __name__ == "__main__":
    main()
