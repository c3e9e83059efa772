"""What predictions rest on: occlusion maps over images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cifar2.figures.canvas import Figure, image_grid, mpl, short


def occlusion(images: Tensor, maps: Tensor, labels: Tensor, probabilities: Tensor, classes: Sequence[str]) -> Figure:
    """Images, each beside its map, under its class and its prediction with the confidence.

    Args:
        images: uint8, N x 3 x H x W.
        maps: results of ``attribution.occlusion`` for the predicted classes, N x H x W.
        labels: N.
        probabilities: N x classes.
        classes: the names of the classes.
    """
    confidence, predicted = probabilities.max(1)
    names = short(classes)
    pairs = torch.stack([images, torch.stack([overlay(*pair) for pair in zip(images, maps, strict=True)])], 1)
    captions = []
    for t, p, c in zip(labels.tolist(), predicted.tolist(), confidence.tolist(), strict=True):
        captions += [names[t], f"{names[p]} ({c:.1%})"]
    return image_grid(
        pairs.flatten(0, 1),
        "Test images and their class; occlusion maps and the prediction",
        8,
        (10.4, 0.5, 1.5),
        captions,
        fontsize=8,
    )


def overlay(image: Tensor, map_: Tensor) -> Tensor:
    """A map over its image in grey, uint8, 3 x H x W: red above 0, blue below, on a scale of its own."""
    scale = map_.abs().max().clamp_min(torch.finfo().tiny)
    colours = mpl.colormaps["RdBu_r"]((map_ / scale / 2 + 0.5).numpy())[..., :3]
    heat = torch.from_numpy(colours).permute(2, 0, 1)
    return ((heat * 255 + image.float().mean(0)) / 2).to(torch.uint8)
