"""Draw the curves of training runs in a browser while they run, until Ctrl-C: ``make tensorboard``.

It copies the curves that training writes to ``dvclive/`` (see ``cifar2.training.progress``) into a temporary folder,
in TensorBoard's format, and so does not slow training down. A training run removes its curves when it ends; the copies
stay until Ctrl-C.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tensorboard.summary import Writer  # PyTorch's imports torch: half a gigabyte, beside the training

LIVE = Path("dvclive")  # as in cifar2.training.progress, which imports torch too
SECONDS = 0.2  # between two copies; the curves of a short run exist for a second or two


class Run:
    """A training run of one configuration, and its copy for TensorBoard.

    The folder and files of the run stay open. So the files can be read to the end even after the run has removed them,
    and no later run gets the inode of the folder.

    Args:
        folder: the folder of the run, with DVCLive's files ``plots/metrics/METRIC/SEED.tsv``.
        copy: the folder for the copy, with one folder per seed.

    Raises:
        FileNotFoundError: the run has ended.
    """

    def __init__(self, folder: Path, copy: Path) -> None:
        self.folder, self.copy = folder, copy
        self._opened = os.open(folder, os.O_RDONLY)
        self._curves: dict[Path, TextIO] = {}
        self._writers: dict[str, Writer] = {}

    def update(self) -> bool:
        """Copy the points added since the last call; returns whether the run goes on."""
        goes_on = False
        with contextlib.suppress(FileNotFoundError):
            goes_on = os.path.samestat(self.folder.stat(), os.fstat(self._opened))
            for path in self.folder.glob("plots/metrics/*/*.tsv") if goes_on else ():
                if path not in self._curves:
                    self._curves[path] = path.open()
        for path, curve in self._curves.items():
            for step, value in new_points(curve):
                self._writer(path.stem).add_scalar(path.parent.name, value, step)
        for writer in self._writers.values():
            writer.flush()
        return goes_on

    def _writer(self, seed: str) -> Writer:
        if seed not in self._writers:
            self._writers[seed] = Writer(str(self.copy / seed))
        return self._writers[seed]

    def close(self) -> None:
        """Close all files."""
        os.close(self._opened)
        for file in [*self._curves.values(), *self._writers.values()]:
            file.close()


def new_points(curve: TextIO) -> Iterator[tuple[int, float]]:
    """The points that follow in a curve, as step and value; an incomplete last line is left for the next call."""
    position = curve.tell()
    while (line := curve.readline()).endswith("\n"):
        position = curve.tell()
        step, value = line.split("\t")
        if step != "step":
            yield int(step), float(value)
    curve.seek(position)


def mirror(live: Path, copy: Path) -> Iterator[None]:
    """Copy the curves of running training each time the iterator is advanced.

    Args:
        live: the folder in which training writes curves.
        copy: the folder for the copies: ``NAME/SEED``, and ``NAME run 2/SEED`` after a configuration started over.
    """
    runs: dict[str, Run] = {}
    started = Counter[str]()
    while True:
        for name in [name for name, run in runs.items() if not run.update()]:
            runs.pop(name).close()
        for folder in {path.parents[1] for path in live.glob("*/plots/metrics")}:
            name = folder.name
            if name not in runs:
                with contextlib.suppress(FileNotFoundError):
                    runs[name] = Run(folder, copy / (f"{name} run {started[name] + 1}" if started[name] else name))
                    runs[name].update()
                    started[name] += 1
        yield


def main() -> None:
    from tensorboard.program import (  # takes a second, in which Ctrl-C must not print a traceback
        TensorBoard,
        TensorBoardServerException,
    )

    # A terminal that is closed, or `kill`, ends it as Ctrl-C does.
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="cifar2-tensorboard-") as folder:
        server = TensorBoard()
        # Without a server for the data: another process that would have to be ended.
        server.configure(logdir=folder, host="127.0.0.1", reload_interval=1, load_fast="false")
        try:
            address = server.launch()
        except TensorBoardServerException as error:  # as if all the ports that it tries are taken
            sys.exit(f"error: {error}")
        print(f"TensorBoard shows the training in progress at {address} until Ctrl-C", flush=True)
        for _ in mirror(LIVE, Path(folder)):
            time.sleep(SECONDS)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        main()
