"""The weights of the first layer, as images."""

from torch import Tensor

from cifar2.figures.canvas import Figure


def first_layer(weights: Tensor, title: str) -> Figure:
    """The weights of hidden units, units x 3 x 32 x 32, each scaled to its own range; grey is 0."""
    columns = 12
    rows = max(1, -(-len(weights) // columns))
    figure = Figure((9.6, 0.5 + 0.8 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, unit in zip(figure.axes, weights, strict=False):
        axes.imshow((0.5 + 0.5 * unit / unit.abs().max()).permute(1, 2, 0).numpy())
    figure.suptitle(title)
    return figure
