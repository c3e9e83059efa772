"""Progress of training: a bar on a terminal, a line per epoch in a log, and live curves for DVC."""

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tqdm import tqdm

from cifar2.training.record import Epoch

if TYPE_CHECKING:
    from dvclive.live import Live

# DVC looks here for metrics and curves of a run in progress, unless git ignores the folder.
LIVE = Path("dvclive")
# Shell code of a process beside the training process.  Its input ends with that process, even by `kill -9`.
REMOVE = 'trap "" HUP INT TERM; read -r _; rm -rf -- "$0"; rmdir -- "$1"'


class Progress:
    """The progress of the training runs of one configuration.

    While it is open, ``dvclive/NAME`` has the curves (https://dvc.org/doc/dvclive) for `dvc exp show` and DVC's
    extension for VS Code.  The folder is removed when the process ends, even if it is killed.  After a power cut, the
    next run removes it.

    Args:
        name: name of the configuration.
        epochs: total number of epochs of all runs.
    """

    def __init__(self, name: str, epochs: int) -> None:
        self.name = name
        self.folder = LIVE / name.replace(" ", "-")
        # A narrow terminal cuts off the end.  disable=None: show the bar on a terminal only.
        layout = "{desc}: {n_fmt}/{total_fmt}{postfix} |{bar}|"
        self.bar = tqdm(total=epochs, desc=name, bar_format=layout, dynamic_ncols=True, disable=None)
        self._live: Live | None = None
        self._end = ExitStack()
        self._left = epochs
        self._durations: list[float] = []
        self._before = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.bar.close()
        self._end.close()

    def show(self, epoch: Epoch) -> None:
        """Show one more finished epoch; a resumed one is counted, and not timed."""
        self._left -= 1
        if not epoch.resumed:
            self._durations.append(time.monotonic() - self._before)
            # The first epoch is slower than the others: memory is allocated, threads start.
            left = tqdm.format_interval(self._left * fmean(self._durations[1:] or self._durations))
            train = f"train acc {epoch.train_accuracy:.4f} loss {epoch.train_loss:.4f}"
            val = "" if epoch.val_loss is None else f"val acc {epoch.val_accuracy:.4f} loss {epoch.val_loss:.4f}"
            self.bar.set_postfix_str(f"{left} left, {val or train}", refresh=False)
            if self.bar.disable:
                shown = ", ".join(part for part in (train, val, f"{left} left") if part)
                print(f"{self.name} seed {epoch.seed} epoch {epoch.epoch}: {shown}", flush=True)
        self.bar.update()
        self._log(epoch)
        self._before = time.monotonic()

    def _log(self, epoch: Epoch) -> None:
        if self._live is None:
            from dvclive.live import Live  # it imports DVC, which would keep the first step waiting

            self._make_folder()
            self._live = Live(str(self.folder), save_dvc_exp=False, dvcyaml=None)
            # By itself DVCLive would write this into the pipeline's own dvc.yaml.
            (self.folder / "dvc.yaml").write_text("metrics: [metrics.json]\nplots: [plots/metrics: {x: step}]\n")
        self._live.step = epoch.epoch
        for key, value in epoch._asdict().items():
            if key not in ("seed", "epoch") and value is not None:
                self._live.log_metric(f"{key}/seed{epoch.seed}", value)
        self._live.next_step()  # type: ignore[no-untyped-call]

    def _make_folder(self) -> None:
        """Make the folder, start the process that will remove it, and remove the folders of dead runs.

        A folder stays locked while its run, or the process that will remove it, is alive.
        """
        with _locked(Path(), fcntl.LOCK_EX):  # one run at a time does this
            for folder in {self.folder, *(path.parent for path in LIVE.glob("*/dvc.yaml"))}:
                wait = 0 if folder == self.folder else fcntl.LOCK_NB
                with suppress(FileNotFoundError, BlockingIOError), _locked(folder, fcntl.LOCK_EX | wait):
                    shutil.rmtree(folder)
            while not self.folder.exists():
                with suppress(FileNotFoundError):  # the end of another run may remove an empty dvclive/
                    self.folder.mkdir(parents=True)
            lock = self._end.enter_context(_locked(self.folder, fcntl.LOCK_EX))
        process = subprocess.Popen(
            ["sh", "-c", REMOVE, self.folder, LIVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal does not reach it
            pass_fds=[lock],
        )
        self._end.enter_context(process)


@contextmanager
def _locked(folder: Path, operation: int) -> Iterator[int]:
    """A lock on a folder, as a file descriptor; it ends with all processes that have it (flock(2))."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, operation)
        yield lock
    finally:
        os.close(lock)
