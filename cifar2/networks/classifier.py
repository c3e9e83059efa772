"""Trained classifiers on disk: their weights, and everything needed to use them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from cifar2 import files, params
from cifar2.dataset.splits import Split
from cifar2.errors import UserError
from cifar2.mynet import MyNet
from cifar2.networks import transfer
from cifar2.networks.cnn import Cnn


class Card(BaseModel):
    """The description of a classifier: how to build its network, prepare its inputs and name its outputs.

    Attributes:
        name: name of the configuration that it was trained with.
        configuration: that configuration.
        n_l: number of units of each layer of a ``MyNet``, input and output included; empty for other networks.
        activation: activation function of the hidden layers of a ``MyNet``.
        features: the feature extractor between the images and the network, if there is one.
        classes: names of the outputs.
        mean, std: normalisation of the images, by channel.
        image_size: height and width of the images, in pixels; on disk, CIFAR-10's 32 go without saying.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    configuration: params.AnyConfiguration
    n_l: tuple[int, ...]
    activation: str
    features: params.Features | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int = Field(default=32, exclude_if=lambda size: size == 32)

    @property
    def convolves(self) -> bool:
        """Whether the network has convolutions (a feature extractor does not count)."""
        return not self.n_l


def describe(name: str, configuration: params.AnyConfiguration, all_params: params.Params, split: Split) -> Card:
    """The card of a classifier trained on ``split`` with the configuration called ``name``."""
    mean, std = tuple(all_params.normalise.mean), tuple(all_params.normalise.std)
    hidden = all_params.train.hidden if isinstance(configuration, params.Mlp) else []
    n_l: tuple[int, ...] = (split.x[0].numel(), *hidden, len(split.classes))
    if isinstance(configuration, params.Cnn):
        n_l = ()
    elif isinstance(configuration, params.Transfer) and configuration.backbone:
        n_l, mean, std = (), transfer.MEAN, transfer.STD
    return Card(
        name=name,
        configuration=configuration,
        n_l=n_l,
        activation=all_params.train.activation,
        features=split.features,
        classes=split.classes,
        mean=mean,
        std=std,
        image_size=all_params.data.image_size,
    )


def build(card: Card, seed: int, pretrained: bool = True) -> nn.Module:
    """A new network with PyTorch's initial weights; the global random state does not change.

    Args:
        card: the description of the network.
        seed: seed of the weights.
        pretrained: whether a backbone gets its pretrained weights, or random ones.

    Raises:
        UserError: the backbone is unknown, or its weights are not available.
    """
    n_classes = len(card.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match card.configuration:
            case params.Cnn() as c:
                return Cnn(c.channels, n_classes, c.dropout)
            case params.Transfer(backbone=str() as backbone, image_size=int() as size) as c:
                return transfer.Transfer(backbone, size, c.trainable_blocks, n_classes, c.dropout, pretrained)
            case c:
                return MyNet(card.n_l, card.activation, "identity", c.dropout)


def save(path: Path, card: Card, models: Mapping[str, nn.Module], accuracies: Mapping[str, float | None]) -> None:
    """Write ``models`` to one file.

    Args:
        path: path of the file.
        card: the description of all ``models``.
        models: networks by name, for example ``seed0``.
        accuracies: ``val_accuracy`` and ``train_accuracy``, means over ``models``; None if unknown.
    """
    tensors = {f"{key}/{name}": t for key, model in models.items() for name, t in model.state_dict().items()}
    files.write_tensors(
        path, tensors, {"card": card.model_dump(), "keys": list(models), "accuracies": dict(accuracies)}
    )


def load(path: Path) -> tuple[Card, dict[str, nn.Module], dict[str, float | None]]:
    """Read a file written by :func:`save`: the card, the models in evaluation mode, the accuracies.

    Raises:
        UserError: the file is missing or corrupted, or holds no model.
    """
    tensors, about = files.read_tensors(path)
    if "card" not in about:
        names = sorted({name.partition("/")[0] for name in tensors})
        raise UserError(f"{path} is not a model, but holds {', '.join(names)}; the models are in data/models/")
    try:
        card = Card.model_validate(about["card"])
        models = {}
        for key in about["keys"]:
            models[key] = build(card, seed=0, pretrained=False).eval()
            prefix = f"{key}/"
            models[key].load_state_dict(
                {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            )
        return card, models, about["accuracies"]
    except (KeyError, ValidationError, RuntimeError) as error:
        raise files.corrupted(path, error) from error


def n_parameters(model: nn.Module) -> int:
    """The number of trainable parameters; frozen ones do not count."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
