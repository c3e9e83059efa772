"""Images or features in memory, ready for a network."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cifar2.dataset.splits import Split

CPU = torch.device("cpu")


class Examples(NamedTuple):
    """The inputs and labels of a network, all in memory on one device.

    Attributes:
        x: float32; normalised images, N x 3 x H x W, or features, N x F.
        y: labels, int64, N.
        mean, std: normalisation of the images, by channel.
    """

    x: Tensor
    y: Tensor
    mean: Sequence[float]
    std: Sequence[float]


def examples(split: Split, mean: Sequence[float], std: Sequence[float], device: torch.device = CPU) -> Examples:
    """The examples of ``split`` on ``device``: images are normalised, features stay as they are."""
    x = split.x.to(device)
    return Examples(x if split.features else normalise(x, mean, std), split.labels.to(device), mean, std)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale uint8 images (N x 3 x H x W) to 0..1, then (value - mean) / std per channel, float32."""
    mean_, std_ = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (mean, std))
    return images.float().div_(255).sub_(mean_).div_(std_)
