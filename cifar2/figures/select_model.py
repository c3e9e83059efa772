"""The ranking of the configurations."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cifar2.figures.canvas import Axes, Figure
from cifar2.figures.colours import BLUE, GREEN, GREY, ORANGE, SKY

SELECTED, OF_FAMILY = "selected", "selected from its family"
COLOURS = {
    SELECTED: BLUE,
    OF_FAMILY: SKY,
    "tied on accuracy and loss": GREEN,
    "tied on accuracy": ORANGE,
    "not tied": GREY,
}


def ranking(rows: Sequence[Mapping[str, Any]], best: Collection[str], n_seeds: int) -> Figure:
    """The three criteria of the rule and the selection frequency side by side, the selected configuration on top.

    Args:
        rows: of ``metrics/ranking.csv``, best first.
        best: the names of the configurations selected from their families.
        n_seeds: over which each metric is a mean.
    """
    figure = Figure((13, 1.7 + 0.42 * len(rows)), layout="constrained")
    accuracy, loss, gap, often = figure.subplots(1, 4, sharey=True, width_ratios=(3, 3, 3, 2))
    colours = [COLOURS[_status(row, best)] for row in rows]
    _dots(accuracy, rows, "val_accuracy", "val_accuracy_se", colours)
    accuracy.set(xlabel="validation accuracy", title="1  the best accuracy")
    _dots(loss, rows, "bad_epoch_loss", "val_loss_se", colours)
    loss.set(xlabel="validation loss + deviation over epochs", title="2  the lowest loss")
    _dots(gap, rows, "gap", "gap_se", colours)
    gap.set(xlabel="training minus validation accuracy", title="3  the smallest gap")
    fractions = [row["fraction_of_family"] for row in rows]
    bars = often.barh(range(len(rows)), fractions, color=colours, height=0.6)
    often.bar_label(bars, [f"{fraction:.0%}" for fraction in fractions], padding=3)
    often.set(xlabel="fraction of resamples", title=OF_FAMILY, xlim=(0, 1.3), xticks=[0, 0.5, 1])

    accuracy.set_yticks(range(len(rows)), [f"{row['name']} ({row['family']})  {row['rank']}" for row in rows])
    accuracy.invert_yaxis()
    for label, colour in COLOURS.items():
        if colour in colours:
            gap.scatter([], [], color=colour, label=label)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    seeds = f"{n_seeds} seed{'s' * (n_seeds > 1)}"
    figure.suptitle(f"Mean over {seeds} with standard error; tied: within one standard error of the paired difference")
    return figure


def _status(row: Mapping[str, Any], best: Collection[str]) -> str:
    if row["rank"] == 1 or row["name"] in best:
        return SELECTED if row["rank"] == 1 else OF_FAMILY
    return "tied on accuracy and loss" if row["tied_on_loss"] else "tied on accuracy" if row["tied"] else "not tied"


def _dots(axes: Axes, rows: Sequence[Mapping[str, Any]], value: str, error: str, colours: Sequence[str]) -> None:
    for i, (row, colour) in enumerate(zip(rows, colours, strict=True)):
        axes.errorbar(row[value], i, xerr=row[error] or None, fmt="o", color=colour, capsize=3)
    axes.grid(visible=True, axis="x")
