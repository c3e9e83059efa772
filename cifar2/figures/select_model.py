"""The ranking of the configurations."""

from collections.abc import Mapping, Sequence

from cifar2.evaluation.selection import Ranked
from cifar2.figures.canvas import Axes, Figure
from cifar2.figures.colours import BLUE, GREEN, GREY, ORANGE

# The best configuration, and how far the others passed the rule.
COLOURS = {"selected": BLUE, "tied on accuracy and loss": GREEN, "tied on accuracy": ORANGE, "not tied": GREY}


def ranking(rows: Sequence[Ranked], families: Mapping[str, str], n_seeds: int) -> Figure:
    """The three criteria of the rule side by side, the selected configuration on top.

    Args:
        rows: the configurations, best first.
        families: the family of each configuration, by name.
        n_seeds: over which each metric is a mean.
    """
    figure = Figure((12, 1.7 + 0.42 * len(rows)), layout="constrained")
    accuracy, loss, gap = figure.subplots(1, 3, sharey=True)
    colours = [BLUE if row.rank == 1 else GREEN if row.tied_on_loss else ORANGE if row.tied else GREY for row in rows]
    metrics = [row.metrics for row in rows]

    _dots(accuracy, [m["val_accuracy"] for m in metrics], [m["val_accuracy_se"] for m in metrics], colours)
    best = max(metrics, key=lambda m: float(m["val_accuracy"]))
    accuracy.axvspan(best["val_accuracy"] - best["val_accuracy_se"], best["val_accuracy"], color=BLUE, alpha=0.12, lw=0)
    accuracy.set(xlabel="validation accuracy", title="1  near the best accuracy")

    _dots(loss, [row.bad_epoch_loss for row in rows], [m["val_loss_se"] for m in metrics], colours)
    lowest = min((row for row in rows if row.tied), key=lambda row: row.bad_epoch_loss)
    low = lowest.bad_epoch_loss
    loss.axvspan(low, low + lowest.metrics["val_loss_se"], color=BLUE, alpha=0.12, lw=0)
    loss.set(xlabel="validation loss + deviation over epochs", title="2  near the lowest loss")

    _dots(gap, [m["gap"] for m in metrics], [0.0] * len(metrics), colours)
    gap.set(xlabel="training minus validation accuracy", title="3  the smallest gap")

    accuracy.set_yticks(range(len(rows)), [f"{row.name} ({families[row.name]})  {row.rank}" for row in rows])
    accuracy.invert_yaxis()
    for label, colour in COLOURS.items():
        if colour in colours:
            gap.scatter([], [], color=colour, label=label)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    seeds = f"{n_seeds} seed{'s' * (n_seeds > 1)}"
    figure.suptitle(f"Mean over {seeds} with standard error; shaded: within one standard error (tied)")
    return figure


def _dots(axes: Axes, x: Sequence[float], errors: Sequence[float], colours: Sequence[str]) -> None:
    for i, (value, error, colour) in enumerate(zip(x, errors, colours, strict=True)):
        axes.errorbar(value, i, xerr=error or None, fmt="o", color=colour, capsize=3)
    axes.grid(visible=True, axis="x")
