"""Run a stage, and print the times of its parts as JSON: ``python -m benchmarks.probe stages/train.py fine``.

All times are in seconds.  ``wall`` counts from the start of the process; ``start_up`` ends when all modules are
imported; ``input`` and ``output`` are reading and writing files; ``work`` is the rest.  ``peak_mib`` is the largest
resident memory.
Linux only: the start and the memory of the process come from /proc (proc(5)).
"""

import functools
import json
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

ROOT = Path(__file__).parent.parent
P = ParamSpec("P")
T = TypeVar("T")


def since_start() -> float:
    """Seconds since this process started (field 22 of /proc/self/stat, proc(5))."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def report(**more: float) -> None:
    """Print the times and the peak memory."""
    status = Path("/proc/self/status").read_text()
    # getrusage's ru_maxrss would start with the memory of the parent process at the fork.
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    print(json.dumps({"wall": since_start(), **more, "peak_mib": peak_kib / 1024}), flush=True)


def main() -> None:
    until_training = sys.argv[1] == "--until-training"
    stage, *arguments = sys.argv[1 + until_training :]
    if stage == "import-torch":
        import torch  # noqa: F401

        return report()
    sys.argv = [stage, *arguments]
    script = runpy.run_path(str(ROOT / stage))
    start_up = since_start()
    from cifar2 import files

    spent = {"input": 0.0, "output": 0.0}

    def timed(kind: str, work: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(work)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            start = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                spent[kind] += time.perf_counter() - start

        return wrapper

    files.read, files.write = timed("input", files.read), timed("output", files.write)
    if until_training:
        from cifar2.inplace import InPlace

        def stop(*_: object) -> None:
            report()
            os._exit(0)

        InPlace._step = stop  # type: ignore[assignment,method-assign]
    script["main"]()
    total = since_start()
    work = total - start_up - spent["input"] - spent["output"]
    return report(start_up=start_up, input=spent["input"], work=work, output=spent["output"])


if __name__ == "__main__":
    main()
