"""A small convolutional network, for training from scratch on two cores."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Cnn(nn.Module):
    """3 x 3 convolutions, global average pooling, then a linear classifier.

    The stride of the first convolution halves height and width, which saves three quarters of the work of the others.
    Maximum pooling halves them again after each further convolution but the last.  Each convolution is followed by
    batch normalisation (Ioffe and Szegedy, 2015) and ReLU.  Tensors are channels-last, the fastest memory format for
    convolutions on a CPU (https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html).

    Args:
        channels: number of output channels of each convolution, two or more.
        n_classes: number of outputs.
        dropout: fraction of the last channels that are dropped for an example in training.
    """

    def __init__(self, channels: Sequence[int], n_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, channels[0], stride=2)]
        for before, after in pairwise(channels):
            layers += [_convolution(before, after), nn.MaxPool2d(2)]
        self.convolutions = nn.Sequential(*layers[:-1]).to(memory_format=torch.channels_last)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """The logits for images ``x``, N x 3 x H x W."""
        maps = self.convolutions(x.contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.classifier(self.dropout(maps.mean((2, 3))))
        return logits


def _convolution(before: int, after: int, stride: int = 1) -> nn.Module:
    # No bias: batch normalisation would subtract it.
    convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())
