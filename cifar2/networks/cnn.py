"""A small convolutional network, for training from scratch on two cores."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class Cnn(nn.Module):
    """Convolutions of 3 x 3, then a linear classifier of the mean over all places.

    The first halves the picture's height and width by its stride, which spares the others three quarters of the work;
    maximum pooling halves them again after each further one but the last.  Each convolution is followed by batch
    normalisation (Ioffe and Szegedy, 2015) and ReLU.  Pictures are kept channels-last, the order that convolutions on a
    CPU are fastest in (https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html).

    Args:
        channels: of each convolution, two or more.
        n_classes: number of outputs.
        dropout: the share of the last channels that an example loses in training.
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
        """The logits for pictures ``x``, N x 3 x H x W."""
        maps = self.convolutions(x.contiguous(memory_format=torch.channels_last))
        logits: Tensor = self.classifier(self.dropout(maps.mean((2, 3))))
        return logits


def _convolution(before: int, after: int, stride: int = 1) -> nn.Module:
    # Its own bias would be taken out again by the batch normalisation.
    convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())
