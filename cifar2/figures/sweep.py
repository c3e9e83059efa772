"""The trials of a sweep: all at once, and by parameter."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cifar2.figures.canvas import Figure, mpl
from cifar2.figures.colours import BLUE, ORANGE
from cifar2.params import Range


def trials(rows: Sequence[Mapping[str, Any]], space: Mapping[str, Range]) -> Figure:
    """Every trial as a line through the values of its parameters (parallel coordinates).

    Args:
        rows: the trials, best first, each with a value for every name in ``space`` and a ``val_accuracy``.
        space: the ranges of the values.
    """
    accuracies = [row["val_accuracy"] for row in rows]
    floor, note = _floor(accuracies)
    scales = {name: _scale(values) for name, values in space.items()}
    scales["val_accuracy"] = _interval(floor, accuracies[0])
    colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(floor, accuracies[0]), "viridis_r")
    figure = Figure((1.8 * len(scales) + 1, 5), layout="constrained")
    axes = figure.subplots()
    for row in reversed(rows):
        heights = [max(0, height(row[name])) for name, (height, _) in scales.items()]
        best = row is rows[0]
        axes.plot(heights, color=colours.to_rgba(row["val_accuracy"]), lw=3 if best else 1, alpha=1 if best else 0.7)
    for x, (height, ticks) in enumerate(scales.values()):
        axes.axvline(x, color="black", lw=0.8)
        for tick in ticks:
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
            axes.text(x + 0.04, height(tick), _short(tick), fontsize=8, va="center", bbox=box, zorder=3)
    axes.set_xticks(range(len(scales)), [name.replace("_", " ") for name in scales])
    axes.tick_params(length=0)
    axes.set(yticks=[], xlim=(-0.1, len(scales) - 0.7))
    axes.spines[:].set_visible(False)
    axes.set_title(f"{len(rows):,} trials; thick line: the most accurate{note}")
    figure.colorbar(colours, ax=axes, label="validation accuracy", shrink=0.8)
    return figure


def by_parameter(rows: Sequence[Mapping[str, Any]], space: Mapping[str, Range]) -> Figure:
    """Validation accuracy over each parameter; shaded: within one standard error of the best.

    Args:
        rows: as for :func:`trials`, and with a ``val_accuracy_se``, maybe None.
        space: as for :func:`trials`.
    """
    columns = min(3, len(space))
    lines = -(-len(space) // columns)
    figure = Figure((4 * columns, 3 * lines + 0.4), layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    accuracies = [row["val_accuracy"] for row in rows]
    best, (floor, note) = accuracies[0], _floor(accuracies)
    for axes in panels.flat[len(space) :]:
        axes.set_axis_off()
    for axes, (name, values) in zip(panels.flat, space.items(), strict=False):
        position, ticks = _scale(values)
        x = [position(row[name]) for row in rows]
        axes.scatter(x, [max(floor, accuracy) for accuracy in accuracies], s=14, color=BLUE, alpha=0.6, lw=0)
        axes.scatter(x[0], best, s=40, color=ORANGE)
        axes.axhspan(best - (rows[0]["val_accuracy_se"] or 0), best, color=BLUE, alpha=0.12)
        axes.set_xticks([position(tick) for tick in ticks], [_short(tick) for tick in ticks])
        axes.set(xlabel=name.replace("_", " "), xlim=(-0.05, 1.05))
        axes.grid(visible=True)
    for axes in panels[:, 0]:
        axes.set_ylabel("validation accuracy")
    figure.suptitle(f"{len(rows):,} trials; orange: the best; shaded: within one standard error of it{note}")
    return figure


def _floor(accuracies: Sequence[float]) -> tuple[float, str]:
    """The lowest accuracy drawn, and a note if some are lower.

    Trials that learned nothing (Tukey's outliers) would squeeze all others together.
    """
    low, high = np.quantile(accuracies, [0.25, 0.75])
    floor = max(min(accuracies), float(low - 1.5 * (high - low)))
    n = sum(accuracy < floor for accuracy in accuracies)
    return floor, f"; {n} below {floor:.3f} drawn there" if n else ""


def _scale(values: Range) -> tuple[Callable[[Any], float], list[Any]]:
    """The position of a value between 0 and 1, and the values with a tick."""
    if listed := values.choice or values.grid:
        return lambda value: listed.index(value) / max(1, len(listed) - 1), listed
    if values.log_uniform:
        low, high = values.log_uniform
        return lambda value: math.log(value / low) / math.log(high / low), [low, math.sqrt(low * high), high]
    return _interval(*(values.uniform or ()))


def _interval(low: float, high: float) -> tuple[Callable[[Any], float], list[Any]]:
    return lambda value: (value - low) / (high - low or 1), [low, (low + high) / 2, high]


def _short(value: Any) -> str:  # noqa: ANN401
    return f"{value:.3g}" if isinstance(value, float) else str(value)
