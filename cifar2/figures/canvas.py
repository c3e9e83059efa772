"""Every picture.  Each function draws one figure; ``write`` stores it with the same bytes every time."""

import io
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cifar2 import files

# Matplotlib would read the user's settings and keep a list of all installed fonts in the home directory.  A temporary
# folder and its own fonts take 0.3 s, and give the same bytes everywhere.  A notebook's backend is for a screen, and
# need not be installed here.
os.environ |= {"MPL_IGNORE_SYSTEM_FONTS": "1", "MPLBACKEND": "agg"}
with tempfile.TemporaryDirectory() as os.environ["MPLCONFIGDIR"]:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
del os.environ["MPLCONFIGDIR"]

if TYPE_CHECKING:  # only the names: a stage that draws one figure does not depend on the code behind another
    from cifar2.evaluation.selection import Ranked
    from cifar2.gradcheck import Case, Errors
    from cifar2.params import Range

# Okabe and Ito's palette, told apart by colour-blind readers too (https://jfly.uni-koeln.de/color/).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#6e6e6e"
CHANNELS = {"red": "#D55E00", "green": GREEN, "blue": BLUE}

mpl.rcdefaults()  # a user's own matplotlibrc would change the bytes
mpl.rcParams.update(
    {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.alpha": 0.3}
)


def write(path: Path, figure: Figure) -> None:
    """Write ``figure`` as PNG, without matplotlib's version in it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    files.write(path, content.getvalue())


def samples(images: Tensor, normalised: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """The first pictures of each class before and after normalisation, and how the values move.

    Args:
        images: uint8, N x 3 x 32 x 32.
        normalised: the same, normalised.
        labels: N.
        classes: the names of the labels.
    """
    columns = 8
    low, high = normalised.min().item(), normalised.max().item()
    shown = (normalised - low) / (high - low)
    figure = Figure((9, 2.3 * len(classes) + 3), layout="constrained")
    rows = figure.add_gridspec(2, 1, height_ratios=[2.3 * len(classes), 2.7])
    pictures, values = figure.add_subfigure(rows[0]), figure.add_subfigure(rows[1])

    grid = pictures.subplots(2 * len(classes), columns, squeeze=False)
    for label, name in enumerate(classes):
        places = (labels == label).nonzero().squeeze(1)[:columns].tolist()
        for row, (source, when) in enumerate(((images, "as it is"), (shown, "normalised")), 2 * label):
            for axes, place in zip(grid[row], places, strict=False):
                axes.imshow(source[place].permute(1, 2, 0).numpy())
            for axes in grid[row]:
                axes.set_axis_off()
            grid[row][0].set_axis_on()
            grid[row][0].spines[:].set_visible(False)
            grid[row][0].set(xticks=[], yticks=[])
            grid[row][0].set_ylabel(f"{name}\n{when}")
    pictures.suptitle(
        f"Normalisation moves the scale, not the picture: {low:.2f} to {high:.2f} drawn as black to white"
    )

    before, after = values.subplots(1, 2, sharey=True)
    for axes, source, title, bounds in (
        (before, images.float(), "pixel values as they are", (0, 255)),
        (after, normalised, "pixel values normalised", (low, high)),
    ):
        for channel, (name, colour) in enumerate(CHANNELS.items()):
            counts = source[:, channel].histc(64, *bounds) / source[:, channel].numel()
            width = (bounds[1] - bounds[0]) / 64
            axes.stairs(counts.numpy(), [bounds[0] + i * width for i in range(65)], color=colour, label=name)
        axes.set(xlabel=title, xlim=bounds)
        axes.grid(visible=True)
    before.set_ylabel("share of pixels")
    after.legend(frameon=False)
    return figure


def class_distribution(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Bars of images by split and class; ``counts[split][name]``."""
    n_classes = max(map(len, counts.values()))
    many = n_classes > 3  # names and numbers that need a line each
    figure = Figure((11, 1 + 0.3 * n_classes) if many else (8, 3.8), layout="constrained")
    panels = figure.subplots(1, len(counts), sharey=many)
    for axes, (split, by_class) in zip(panels, counts.items(), strict=True):
        total = sum(by_class.values())
        if many:
            bars = axes.barh(list(by_class), list(by_class.values()), color=BLUE, height=0.6)
            axes.bar_label(bars, [f"{n:,} ({n / total:.1%})" for n in by_class.values()], padding=3)
            axes.set(xlabel="images", xmargin=0.4)
        else:
            bars = axes.bar(list(by_class), list(by_class.values()), color=BLUE, width=0.6)
            axes.bar_label(bars, [f"{n:,}\n{n / total:.1%}" for n in by_class.values()], padding=2)
            axes.margins(y=0.2)
        axes.set_title(f"{split}: {total:,} images")
    if many:
        panels[0].invert_yaxis()
    else:
        panels[0].set_ylabel("images")
    return figure


def pairs(left: Tensor, right: Tensor, captions: Sequence[str], title: str) -> Figure:
    """Pictures side by side, two and two.

    Args:
        left: uint8, N x 3 x 32 x 32.
        right: likewise.
        captions: N.
        title: of the figure.
    """
    columns = 9
    rows = max(1, -(-len(captions) // columns))
    figure = Figure((12, 0.6 + 0.95 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    gap = left.new_full((3, 32, 1), 255)
    for axes, one, other, caption in zip(figure.axes, left, right, captions, strict=False):
        axes.imshow(torch.cat([one, gap, other], 2).permute(1, 2, 0).numpy())
        axes.set_title(caption, fontsize=8, pad=2)
    figure.suptitle(title)
    return figure


def gradient_errors(results: Sequence[tuple["Case", "Errors"]], tolerances: "Errors") -> Figure:
    """Every check's errors, by activation and loss, against the tolerances."""
    groups: dict[str, list[Errors]] = {}
    for case, errors in results:
        groups.setdefault(f"{case.activation}, {case.loss.replace('_', ' ')}", []).append(errors)
    figure = Figure((9, 1.2 + 0.45 * len(groups)), layout="constrained")
    axes = figure.subplots()
    methods = (("autograd", BLUE, "o", 0.15), ("finite_difference", ORANGE, "s", -0.15))
    for method, colour, marker, shift in methods:
        x = [
            max(getattr(e, method), 1e-17) for errors in groups.values() for e in errors
        ]  # an exact 0 has no logarithm
        y = [i + shift for i, errors in enumerate(groups.values()) for _ in errors]
        name = method.replace("_", " ").replace("finite", "central")
        axes.scatter(x, y, s=22, color=colour, marker=marker, alpha=0.7, linewidths=0, label=f"against {name}")
        axes.axvline(getattr(tolerances, method), color=colour, linestyle="--", label=f"tolerance, {name}")
    axes.set_xscale("log")
    axes.set(xlabel="largest relative error of backpropagation (0 drawn at 1e-17)", xlim=(3e-18, 1e-4))
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.grid(visible=True, axis="x")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def ranking(rows: Sequence["Ranked"], families: Mapping[str, str], n_seeds: int) -> Figure:
    """The three criteria of the rule side by side, best configuration on top; ``families[name]`` of each."""
    figure = Figure((12, 1.7 + 0.42 * len(rows)), layout="constrained")
    accuracy, loss, gap = figure.subplots(1, 3, sharey=True)
    colours = [BLUE if row.rank == 1 else GREEN if row.tied_on_loss else ORANGE if row.tied else GREY for row in rows]
    m = [row.metrics for row in rows]

    _dots(accuracy, [x["val_accuracy"] for x in m], [x["val_accuracy_se"] for x in m], colours)
    best = max(m, key=lambda x: float(x["val_accuracy"]))
    accuracy.axvspan(best["val_accuracy"] - best["val_accuracy_se"], best["val_accuracy"], color=BLUE, alpha=0.12, lw=0)
    accuracy.set(xlabel="validation accuracy", title="1  near the best accuracy")

    _dots(loss, [row.bad_epoch_loss for row in rows], [x["val_loss_se"] for x in m], colours)
    lowest = min((row for row in rows if row.tied), key=lambda row: row.bad_epoch_loss)
    low = lowest.bad_epoch_loss
    loss.axvspan(low, low + lowest.metrics["val_loss_se"], color=BLUE, alpha=0.12, lw=0)
    loss.set(xlabel="validation loss + deviation over epochs", title="2  near the lowest loss")

    _dots(gap, [x["gap"] for x in m], [0.0] * len(m), colours)
    gap.set(xlabel="training minus validation accuracy", title="3  the smallest gap")

    accuracy.set_yticks(range(len(rows)), [f"{row.name} ({families[row.name]})  {row.rank}" for row in rows])
    accuracy.invert_yaxis()
    for colour, label in ((BLUE, "selected"), (GREEN, "tied to the gap"), (ORANGE, "tied on accuracy"), (GREY, "out")):
        if colour in colours:
            gap.scatter([], [], color=colour, label=label)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    seeds = f"{n_seeds} seed{'s' * (n_seeds > 1)}"
    figure.suptitle(f"Mean over {seeds} with standard error; shaded: within one standard error, not told apart")
    return figure


def _dots(axes: Axes, x: Sequence[float], errors: Sequence[float], colours: Sequence[str]) -> None:
    for i, (value, error, colour) in enumerate(zip(x, errors, colours, strict=True)):
        axes.errorbar(value, i, xerr=error or None, fmt="o", color=colour, capsize=3)
    axes.grid(visible=True, axis="x")


def trials(rows: Sequence[Mapping[str, Any]], space: Mapping[str, "Range"]) -> Figure:
    """Every trial of a sweep as a line through the values of its parameters (parallel coordinates).

    Args:
        rows: the trials, best first, each with a value for every name in ``space`` and a ``val_accuracy``.
        space: what the values were taken from.
    """
    accuracies = [row["val_accuracy"] for row in rows]
    foot = _foot(accuracies)
    scales = {name: _scale(values) for name, values in space.items()}
    scales["val_accuracy"] = _interval(foot, accuracies[0])
    colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(foot, accuracies[0]), "viridis_r")
    figure = Figure((1.8 * len(scales) + 1, 5), layout="constrained")
    axes = figure.subplots()
    for row in reversed(rows):
        places = [max(0, place(row[name])) for name, (place, _) in scales.items()]
        best = row is rows[0]
        axes.plot(places, color=colours.to_rgba(row["val_accuracy"]), lw=3 if best else 1, alpha=1 if best else 0.7)
    for x, (place, ticks) in enumerate(scales.values()):
        axes.axvline(x, color="black", lw=0.8)
        for tick in ticks:
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
            axes.text(x + 0.04, place(tick), _short(tick), fontsize=8, va="center", bbox=box, zorder=3)
    axes.set_xticks(range(len(scales)), [name.replace("_", " ") for name in scales])
    axes.tick_params(length=0)
    axes.set(yticks=[], xlim=(-0.1, len(scales) - 0.7))
    axes.spines[:].set_visible(False)
    axes.set_title(f"{len(rows):,} trials, the most accurate the thick line{_below(accuracies, foot)}")
    figure.colorbar(colours, ax=axes, label="validation accuracy", shrink=0.8)
    return figure


def _foot(accuracies: Sequence[float]) -> float:
    """What is drawn lowest: trials that learned nothing (Tukey's outliers) would press all others together."""
    low, high = np.quantile(accuracies, [0.25, 0.75])
    return max(min(accuracies), float(low - 1.5 * (high - low)))


def _below(accuracies: Sequence[float], foot: float) -> str:
    n = sum(accuracy < foot for accuracy in accuracies)
    return f"; {n} below {foot:.3f} drawn there" if n else ""


def _scale(values: "Range") -> tuple[Callable[[Any], float], list[Any]]:
    """Where between 0 and 1 a value stands, and which values are named."""
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


def by_parameter(rows: Sequence[Mapping[str, Any]], space: Mapping[str, "Range"]) -> Figure:
    """What each parameter alone tells of the validation accuracy; shaded: within a standard error of the best.

    Args:
        rows: as for :func:`trials`, and with a ``val_accuracy_se``, maybe None.
        space: likewise.
    """
    columns = min(3, len(space))
    lines = -(-len(space) // columns)
    figure = Figure((4 * columns, 3 * lines + 0.4), layout="constrained")
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    accuracies = [row["val_accuracy"] for row in rows]
    best, foot = accuracies[0], _foot(accuracies)
    for axes in panels.flat[len(space) :]:
        axes.set_axis_off()
    for axes, (name, values) in zip(panels.flat, space.items(), strict=False):
        place, ticks = _scale(values)
        x = [place(row[name]) for row in rows]
        axes.scatter(x, [max(foot, accuracy) for accuracy in accuracies], s=14, color=BLUE, alpha=0.6, lw=0)
        axes.scatter(x[0], best, s=40, color=ORANGE)
        axes.axhspan(best - (rows[0]["val_accuracy_se"] or 0), best, color=BLUE, alpha=0.12)
        axes.set_xticks([place(tick) for tick in ticks], [_short(tick) for tick in ticks])
        axes.set(xlabel=name.replace("_", " "), xlim=(-0.05, 1.05))
        axes.grid(visible=True)
    for axes in panels[:, 0]:
        axes.set_ylabel("validation accuracy")
    figure.suptitle(
        f"{len(rows):,} trials, the best in orange; shaded: within one standard error of it{_below(accuracies, foot)}"
    )
    return figure


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix, each cell with its count and its share of the true class."""
    size = max(4.2, 0.9 * len(classes) + 1.5)
    figure = Figure((size + 0.6, size), layout="constrained")
    axes = figure.subplots()
    shares = [[n / max(1, sum(row)) for n in row] for row in matrix]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(matrix):
        for j, n in enumerate(row):
            colour = "white" if shares[i][j] > 0.5 else "black"
            axes.text(j, i, f"{n:,}\n{shares[i][j]:.1%}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(classes)), classes, rotation=0 if len(classes) < 5 else 90)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    return figure


def mistakes(images: Tensor, captions: Sequence[str], title: str) -> Figure:
    """A gallery of uint8 pictures, N x 3 x 32 x 32, each under its caption."""
    columns = 6
    rows = max(1, -(-len(captions) // columns))
    figure = Figure((9.6, 0.6 + 2.05 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, image, caption in zip(figure.axes, images, captions, strict=False):
        axes.imshow(image.permute(1, 2, 0).numpy())
        axes.set_title(caption, fontsize=9)
    figure.suptitle(title)
    return figure


def first_layer(weights: Tensor, title: str) -> Figure:
    """The weights of hidden units as pictures, units x 3 x 32 x 32, each on its own scale; grey is 0."""
    columns = 12
    rows = max(1, -(-len(weights) // columns))
    figure = Figure((9.6, 0.5 + 0.8 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, unit in zip(figure.axes, weights, strict=False):
        axes.imshow((0.5 + 0.5 * unit / unit.abs().max()).permute(1, 2, 0).numpy())
    figure.suptitle(title)
    return figure


def png(image: Tensor) -> bytes:
    """A uint8 picture, 3 x H x W, as the content of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(content, format="png")
    return content.getvalue()
