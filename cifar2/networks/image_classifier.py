"""A trained classifier as one network, from images to logits."""

import torch
from torch import Tensor, nn

from cifar2.dataset.examples import normalise
from cifar2.networks import classifier, transfer


class ImageClassifier(nn.Module):
    """Everything from images to logits: normalisation, feature extractor, network.

    Args:
        card: the description of the classifier.
        network: its network.
    """

    def __init__(self, card: classifier.Card, network: nn.Module) -> None:
        super().__init__()
        self.card = card
        features = card.features
        self.backbone = transfer.feature_extractor(features.backbone, features.image_size) if features else None
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The logits, N x classes, of uint8 images, N x 3 x H x W."""
        if self.backbone and self.card.features:
            x = normalise(images, transfer.MEAN, transfer.STD)
            x = transfer.features_of(self.backbone, x, self.card.features.flip_average)
        else:
            x = normalise(images, self.card.mean, self.card.std)
        logits: Tensor = self.network(x)
        return (logits + self.network(x.flip(-1))) / 2 if self.card.configuration.flip_average else logits


@torch.no_grad()
def outputs(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The logits, N x classes, and the features, N x F, which are the inputs of the last linear layer.

    The features are the mean over each image and its mirror image if the network sees both.
    """
    *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    features: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    logits = network(x)
    hook.remove()
    return logits, torch.stack(features).mean(0)
