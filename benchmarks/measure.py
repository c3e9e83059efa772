"""Comparisons on a noisy machine: the contenders take turns, and ratios are taken within a turn."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any

Row = dict[str, Any]


def seconds(work: Callable[[], object]) -> float:
    """The time of ``work`` in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def warm(work: Callable[[], float]) -> float:
    """The second measurement of ``work``; the first one refills the caches after the turns of the others."""
    work()
    return work()


def interleaved(works: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Let each of ``works`` measure itself once a round; the first ``warm_up`` rounds do not count."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(warm_up + rounds):
        for name, work in works.items():
            found[name].append(work())
    return {name: numbers[warm_up:] for name, numbers in found.items()}


def row(
    name: str,
    what: str,
    ours: Sequence[float],
    rival: Sequence[float],
    unit: str,
    target: str | None = None,
    faster: bool = False,
    **more: object,
) -> Row:
    """One row of the results, from the measurements of each round.

    Args:
        name: name of the row.
        what: the comparison, in words.
        ours: one number per round.
        rival: the numbers of the rival in the same rounds.
        unit: unit of these numbers.
        target: the aim for the ratio, such as ``">= 4"`` or ``"<= 1.1"``.
        faster: the ratio is rival / ours, the speed-up, instead of ours / rival.
        more: further columns.

    Returns:
        ``ours`` and ``rival`` as medians; ``rounds``, the numbers themselves; ``ratio`` as the median of the rounds'
        ratios, with the first and third quartile as ``spread`` (None for one round); ``is``, the formula of the ratio;
        ``met``, whether it is on target.
    """
    ratios = [b / a if faster else a / b for a, b in zip(ours, rival, strict=True)]
    ratio = median(ratios)
    met = None
    if target is not None:
        comparison, bound = target.split()
        met = ratio >= float(bound) if comparison == ">=" else ratio <= float(bound)
    quartiles = quantiles(ratios) if len(ratios) > 1 else None
    return {
        "name": name,
        "what": what,
        "ours": median(ours),
        "rival": median(rival),
        "unit": unit,
        "ratio": ratio,
        "is": "rival / ours" if faster else "ours / rival",
        "spread": quartiles and [quartiles[0], quartiles[2]],
        "rounds": {"ours": list(ours), "rival": list(rival)},
        "target": target,
        "met": met,
        **more,
    }
