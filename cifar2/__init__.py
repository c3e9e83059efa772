"""CIFAR-2: airplanes against birds, with backpropagation and SGD written by hand.

The library does not know DVC; the scripts in ``stages/`` read and write the files of the pipeline.
"""

import ctypes
import getpass
import os
import sys
from importlib.util import find_spec

if sys.platform == "win32":
    sys.exit(
        "error: CIFAR-2 runs on Linux and macOS; on Windows, use it inside WSL (https://learn.microsoft.com/windows/wsl)"
    )
# The scripts import this package before any other, so that a Python without the environment is reported in one line.
if not all(map(find_spec, ("pydantic", "ruamel", "safetensors", "torch"))):
    sys.exit(
        f"error: {sys.executable} is not the Python of the project's environment; "
        "activate it: `. .venv/bin/activate` (`make install` creates it)"
    )

# PyTorch, Ray and DVC ask for the user's name, which `docker run --user 12345` leaves unknown.
try:
    getpass.getuser()
except (KeyError, OSError):
    os.environ["LOGNAME"] = str(os.getuid())

# PyTorch and the libraries below it read these variables on their first use, so they are set here, before any module
# imports one.  Values set by the user stay.
# MKL chooses its matrix kernels by processor; the AVX2 kernels are bit-identical across AMD processors, not on Intel.
os.environ.setdefault("MKL_CBWR", "AVX2")
# Large tensors use pages of 2 MB: random access to examples then misses the processor's page table less often.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# cuBLAS is deterministic only with a workspace of fixed size.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# No library sends usage reports, or writes an identifier of this computer into the home directory for them.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")  # outside of this repository; inside, .dvc/config says so

# The memory of a tensor that is no longer needed stays with the process, for the next one.  glibc would return it to
# the system, and to get it again, page by page, takes longer than the arithmetic on the tensor.  Only glibc has
# mallopt; the numbers of its options are those of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
    mallopt(M_TRIM_THRESHOLD, 2**29)
    mallopt(M_MMAP_THRESHOLD, 2**25)
