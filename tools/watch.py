"""Watch training runs, one line per seed, until Ctrl-C: ``make watch``.

It reads the curves that training writes to ``dvclive/`` while it runs (see ``cifar2.training.progress``), and so does
not slow training down. Into a file or a pipe it prints once.
"""

import argparse
import contextlib
import shutil
import sys
import time
from collections import defaultdict
from pathlib import Path

from cifar2.training.progress import LIVE
from tools.exps import table

METRICS = ["train_loss", "train_accuracy", "val_loss", "val_accuracy"]


def training(live: Path, now: float) -> list[list[str]]:
    """The rows of the table, the header first: the last epoch of each configuration and seed.

    Args:
        live: the folder with DVCLive's files ``NAME/plots/metrics/METRIC/SEED.tsv``.
        now: the time in seconds.
    """
    last: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for path in sorted(live.glob("*/plots/metrics/*/*.tsv")):
        # Without the header, and the last line, which may be incomplete.
        lines = path.read_text().split("\n")[1:-1]
        if lines:
            epoch, value = lines[-1].split("\t")
            seen = last[path.parts[-5], path.stem.removeprefix("seed")]
            seen |= {path.parts[-2]: f"{float(value):.4f}", "epoch": epoch}
            seen["updated"] = f"{max(0, now - path.stat().st_mtime):.0f} s ago"
    names = {"train_accuracy": "train_acc", "val_accuracy": "val_acc"}
    header = ["configuration", "seed", "epoch", *(names.get(metric, metric) for metric in METRICS), "updated"]
    rows = [[*run, *(seen.get(column, "-") for column in ("epoch", *METRICS, "updated"))] for run, seen in last.items()]
    return [header, *rows]


def main() -> None:
    while True:
        # A training run removes its folder when it ends.
        with contextlib.suppress(FileNotFoundError):
            rows = training(LIVE, time.time())
            shown = table(rows, shutil.get_terminal_size((120, 24)).columns) if rows[1:] else "nothing is training"
            if not sys.stdout.isatty():
                print(shown)
                return
            print(f"\033[H\033[2J{shown}", flush=True)
        time.sleep(2)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        main()
