"""The predictions of a trained classifier."""

import torch
from torch import Tensor, nn

from cifar2.dataset.examples import normalise
from cifar2.networks import transfer
from cifar2.networks.classifier import Card

BATCH = 256


def inputs(card: Card, images: Tensor) -> Tensor:
    """The inputs of the network of ``card`` for uint8 images, N x 3 x H x W: normalised images, or features."""
    if card.features:
        return transfer.extract_features(images, **card.features.model_dump())
    return normalise(images, card.mean, card.std)


@torch.no_grad()
def logits(model: nn.Module, x: Tensor, flip_average: bool = False) -> Tensor:
    """The outputs for inputs ``x``, N x classes.

    With ``flip_average`` they are the mean over each image and its mirror image.
    """
    outputs = torch.cat([model(batch) for batch in torch.split(x, BATCH)])
    return (outputs + logits(model, x.flip(-1))) / 2 if flip_average else outputs


def probabilities(model: nn.Module, x: Tensor, flip_average: bool = False) -> Tensor:
    """The softmax of the logits, float64, N x classes."""
    return torch.softmax(logits(model, x, flip_average).double(), 1)
