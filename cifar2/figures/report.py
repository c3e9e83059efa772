"""The weights of the first layer, as images."""

from torch import Tensor

from cifar2.figures.canvas import Figure, image_grid


def first_layer(weights: Tensor, title: str) -> Figure:
    """The weights of hidden units, units x 3 x H x W, each scaled to its own range; grey is 0."""
    shown = 0.5 + 0.5 * weights / weights.abs().amax((1, 2, 3), keepdim=True)
    return image_grid(shown, title, 12, (9.6, 0.5, 0.8), [""] * len(weights))
