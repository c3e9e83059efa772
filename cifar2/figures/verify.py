"""The gradient checks, every relative error against its tolerance; and one image through the untrained network."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from cifar2.figures.canvas import Figure, short
from cifar2.figures.colours import BLUE, ORANGE
from cifar2.gradcheck import Case, Errors

# Classes with a name in the figure, and with a number too.
MOST, FEW = 10, 3


def gradient_errors(results: Sequence[tuple[Case, Errors]], tolerances: Errors) -> Figure:
    """The errors of every check, by activation and loss, against the tolerances."""
    groups: dict[str, list[Errors]] = {}
    for case, errors in results:
        groups.setdefault(f"{case.activation}, {case.loss.replace('_', ' ')}", []).append(errors)
    figure = Figure((9, 1.2 + 0.45 * len(groups)), layout="constrained")
    axes = figure.subplots()
    methods = (("autograd", BLUE, "o", 0.15), ("finite_difference", ORANGE, "s", -0.15))
    for method, colour, marker, shift in methods:
        # An exact 0 has no logarithm.
        x = [max(getattr(e, method), 1e-17) for errors in groups.values() for e in errors]
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


def untrained(image: Tensor, a: Mapping[int, Tensor], probabilities: Mapping[str, float], label: str) -> Figure:
    """One image, the activations of each hidden layer for it, and the predicted probabilities.

    Args:
        image: uint8, 3 x H x W.
        a: for each hidden layer the activations, one per unit.
        probabilities: by class.
        label: the class of the image.
    """
    figure = Figure((10, 2.8), layout="constrained")
    first, *hidden, last = figure.subplots(1, len(a) + 2)
    first.imshow(image.permute(1, 2, 0).numpy())
    first.set_title(f"a training image:\n{label}")
    for axes, (layer, values) in zip(hidden, a.items(), strict=True):
        columns = 2 ** math.ceil(math.log2(len(values)) / 2)
        grid = values.new_full((-(-len(values) // columns) * columns,), math.nan)
        grid[: len(values)] = values
        axes.imshow(grid.view(-1, columns).numpy(), cmap="viridis")
        axes.set_title(f"layer {layer}: {len(values)} units\n{(values == 0).double().mean().item():.0%} are 0")
    for axes in (first, *hidden):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    names = short(list(probabilities))
    bars = last.bar(range(len(names)), list(probabilities.values()), color=BLUE, width=0.6)
    last.set(title="predicted\nprobabilities", ylim=(0, 1))
    if len(names) > MOST:
        last.set(xticks=[], xlabel=f"{len(names)} classes")
    else:
        last.set_xticks(range(len(names)), names, rotation=0 if len(names) <= FEW else 90)
    if len(names) <= FEW:
        last.bar_label(bars, [f"{p:.3f}" for p in probabilities.values()], padding=2)
    return figure
