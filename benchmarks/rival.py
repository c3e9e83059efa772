"""Train a rival, an epoch for each line of input, and answer with its seconds: ``python -m benchmarks.rival NAME``."""

import os
import sys
from pathlib import Path

import cifar2  # noqa: F401 (sets what is taken away here)

# isort: split
# PyTorch as its users have it: without what this project sets for itself.
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
