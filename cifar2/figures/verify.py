"""The gradient checks: every relative error against its tolerance."""

from collections.abc import Sequence

from cifar2.figures.canvas import Figure
from cifar2.figures.colours import BLUE, ORANGE
from cifar2.gradcheck import Case, Errors


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
