"""Compare experiments in a table that fits the terminal: ``make exps``.

`dvc exp show` has a column for every metric and parameter, and truncates what is wider than the terminal. This one
shows the validation accuracy of each configuration, and the selected one. Test accuracies are left out: experiments are
compared on the validation set.

``python -m tools.exps OPTIONS`` passes its options to `dvc exp show`, for example ``--all-commits``.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cifar2 import errors

TRAINED, FINAL = "metrics/train/", "metrics/evaluate/final.json"


def table(rows: Sequence[Sequence[str]], width: int) -> str:
    """Format rows as text. Columns beyond the width go into a block below, after the first column again.

    Args:
        rows: the rows, the first of which is the header.
        width: the maximum length of a line.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    blocks: list[list[int]] = [[0]]
    for i in range(1, len(widths)):
        if sum(widths[j] + 2 for j in blocks[-1]) + widths[i] > width and len(blocks[-1]) > 1:
            blocks.append([0])
        blocks[-1].append(i)
    return "\n\n".join(
        "\n".join("  ".join(row[i].ljust(widths[i]) for i in block).rstrip() for row in rows) for block in blocks
    )


def experiments(shown: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The name, state and data of each commit and experiment in the output of `dvc exp show --json`."""
    for commit in shown:
        yield commit["name"] or commit["rev"][:9], "", commit["data"] or {}
        for experiment in commit["experiments"] or []:
            last = experiment["revs"][0]
            state = (experiment["executor"] or {}).get("state", "")
            yield f"  {last['name'] or last['rev'][:7]}", state.replace("success", ""), last["data"] or {}


def compared(shown: Sequence[Mapping[str, Any]], today: str) -> list[list[str]]:
    """The rows of the table, the header first.

    Args:
        shown: the output of `dvc exp show --json`.
        today: the date in ISO format; rows of this date show their time instead.
    """
    listed = list(experiments(shown))
    metrics = [{path: m.get("data") or {} for path, m in data.get("metrics", {}).items()} for _, _, data in listed]
    trained = list(dict.fromkeys(path for by_path in metrics for path in by_path if path.startswith(TRAINED)))
    rows = [["experiment", "created", "state", "selected", *(Path(path).stem for path in trained)]]
    for (name, state, data), by_path in zip(listed, metrics, strict=True):
        date, _, time = (data.get("timestamp") or "").partition("T")
        selected = by_path.get(FINAL, {}).get("config", "-")
        accuracies = [by_path.get(path, {}).get("val_accuracy") for path in trained]
        cells = ["-" if accuracy is None else f"{accuracy:.4f}" for accuracy in accuracies]
        rows.append([name, time[:5] if date == today else date, state, selected, *cells])
    if not any(state for _, _, state, *_ in rows[1:]):
        for row in rows:
            del row[2]
    return rows


def main() -> None:
    _, options = argparse.ArgumentParser(description=__doc__, allow_abbrev=False).parse_known_args()
    done = subprocess.run(["dvc", "exp", "show", "--json", *options], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    rows = compared(json.loads(done.stdout), datetime.now().date().isoformat())
    print("Validation accuracy by configuration, and the selected one.\n")
    print(table(rows, shutil.get_terminal_size((120, 24)).columns))


if __name__ == "__main__":
    errors.run(main)
