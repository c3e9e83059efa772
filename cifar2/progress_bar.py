"""Progress of long work: a bar on a terminal, a line at each tenth in a log; both on stderr."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


@contextmanager
def progress_bar(name: str, total: int, done: int = 0, unit_scale: bool = False) -> Iterator[Callable[..., None]]:
    """Show progress; the yielded function takes how much is done, and a note to show beside it.

    Args:
        name: shown before the progress.
        total: the amount of work.
        done: how much of it an earlier run has done.
        unit_scale: whether to abbreviate numbers on the terminal: 12.3M.
    """
    # The note precedes the bar, which a narrow terminal cuts off. miniters=1: draw also when fast work becomes slow.
    layout = "{desc}: {n_fmt}/{total_fmt}, {remaining} left{postfix} |{bar}|"
    bar = tqdm(
        desc=name,
        total=total,
        initial=done,
        unit_scale=unit_scale,
        bar_format=layout,
        smoothing=0,
        miniters=1,
        dynamic_ncols=True,
        disable=None,  # unless stderr is a terminal
    )
    start, initial, tenth = time.monotonic(), done, 10 * done // total

    def show(done: int, note: str = "") -> None:
        nonlocal tenth
        bar.set_postfix_str(note, refresh=False)
        bar.update(done - bar.n)
        if bar.disable and 10 * done // total > tenth:
            tenth = 10 * done // total
            left = tqdm.format_interval((time.monotonic() - start) * (total - done) / (done - initial))
            print(f"{name}: {tenth}0 %, {left} left{note and ', '}{note}", file=sys.stderr, flush=True)

    with bar:
        yield show


def steps(items: Iterable[Item], total: int, name: str) -> Iterator[Item]:
    """Iterate over ``total`` items, with a progress bar if there are many."""
    if total < 100:
        yield from items
        return
    with progress_bar(name, total) as show:
        for done, item in enumerate(items, 1):
            yield item
            show(done)
