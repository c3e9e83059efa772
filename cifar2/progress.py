"""Long work shows that it moves: a bar on a terminal, plain lines in a log, and live curves for DVC."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from tqdm import tqdm

if TYPE_CHECKING:
    from dvclive.live import Live

    from cifar2.training import Epoch

# Where DVC looks for metrics and curves while a run goes on (and would not, if git ignored it).
LIVE = Path("dvclive")
# Runs beside a training run.  Its input ends when that process does, even by `kill -9`.
REMOVE = 'trap "" HUP INT TERM; read -r _; rm -rf -- "$0"; rmdir -- "$1"'
Item = TypeVar("Item")


class Progress:
    """Progress of several training runs of one configuration.

    Beside what it prints it keeps the curves in ``dvclive/NAME`` while it is open (https://dvc.org/doc/dvclive), where
    `dvc exp show` and DVC's extension for VS Code see them.  The folder is removed when the process ends, even if it is
    killed; what a power cut leaves is removed by the next run.

    Args:
        name: what is trained.
        epochs: the total over all runs.
    """

    def __init__(self, name: str, epochs: int) -> None:
        self.name = name
        self.folder = LIVE / name.replace(" ", "-")
        self.bar = tqdm(total=epochs, desc=name, unit="epoch", disable=None)  # None: only where there is a terminal
        self._live: Live | None = None
        self._end = ExitStack()
        self._before, self._left = time.monotonic(), epochs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.bar.close()
        self._end.close()

    def show(self, epoch: "Epoch") -> None:
        """Show one more finished epoch."""
        line = (
            f"seed {epoch.seed} epoch {epoch.epoch}: train loss {epoch.train_loss:.4f} acc {epoch.train_accuracy:.4f}"
        )
        if epoch.val_loss is not None:
            line += f", val loss {epoch.val_loss:.4f} acc {epoch.val_accuracy:.4f}"
        self.bar.set_postfix_str(line, refresh=False)
        self.bar.update()
        now = time.monotonic()
        took, self._before, self._left = now - self._before, now, self._left - 1
        if self.bar.disable:
            print(f"{self.name} {line}, {took * self._left:.0f} s left", flush=True)
        self._log(epoch)

    def _log(self, epoch: "Epoch") -> None:
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

        A folder is locked while its run or the process that will remove it is alive.
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


def steps(items: Sequence[Item], name: str) -> Iterator[Item]:
    """Go through ``items`` with a bar on a terminal; in a log with a line after each tenth, of a hundred or more."""
    with tqdm(total=len(items), desc=name, disable=None) as bar:
        for done, item in enumerate(items, 1):
            yield item
            bar.update()
            tenth = 10 * done // len(items)
            if bar.disable and len(items) >= 100 and tenth > 10 * (done - 1) // len(items):
                print(f"{name}: {tenth}0 %", file=sys.stderr, flush=True)
