"""Classifiers on disk: what one needs to know to build and use them, and their weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from cifar2 import files, params
from cifar2.dataset import splits
from cifar2.errors import UserError
from cifar2.mynet import MyNet
from cifar2.networks import transfer
from cifar2.networks.cnn import Cnn

# Pictures that a network sees at once where nothing is learned.
BATCH = 256
# What is kept beside a classifier's weights of how it did.
ACCURACIES = ("val_accuracy", "train_accuracy")


class _Fixed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MyNetShape(_Fixed):
    """What a ``MyNet`` with logits for outputs is made from."""

    kind: Literal["mynet"] = "mynet"
    n_l: tuple[int, ...]
    activation: str
    dropout: float = 0.0


class CnnShape(_Fixed):
    """What a ``Cnn`` is made from."""

    kind: Literal["cnn"] = "cnn"
    channels: tuple[int, ...]
    n_classes: int
    dropout: float


class TransferShape(_Fixed):
    """What a ``Transfer`` is made from."""

    kind: Literal["transfer"] = "transfer"
    backbone: str
    image_size: int
    trainable_blocks: int | Literal["all"]
    n_classes: int
    dropout: float


Shape = MyNetShape | CnnShape | TransferShape


class Card(_Fixed):
    """All that is needed to use a classifier's weights on a picture.

    Attributes:
        configuration: the name of the configuration that it was trained with.
        shape: of its network.
        features: what makes features of a picture before the network sees them, if anything does.
        flip_average: whether its answers are the mean over a picture and its mirror image.
        classes: what the outputs mean.
        mean, std: the normalisation of the pictures, by channel.
    """

    configuration: str
    shape: Annotated[Shape, Field(discriminator="kind")]
    features: params.Features | None
    flip_average: bool
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def convolves(self) -> bool:
        """Whether its network has convolutions (what makes its features has them in any case)."""
        return not isinstance(self.shape, MyNetShape)


def describe(name: str, configuration: params.AnyConfiguration, everything: params.Params, split: splits.Split) -> Card:
    """The card of the classifier that the configuration called ``name`` learns from ``split``."""
    normalise, train = everything.normalise, everything.train
    mean, std = tuple(normalise.mean), tuple(normalise.std)
    dropout, n_classes = configuration.dropout, len(split.classes)
    shape: Shape
    if isinstance(configuration, params.Cnn):
        shape = CnnShape(channels=tuple(configuration.channels), n_classes=n_classes, dropout=dropout)
    elif isinstance(configuration, params.Transfer) and configuration.backbone and configuration.image_size:
        mean, std = transfer.MEAN, transfer.STD
        shape = TransferShape(
            backbone=configuration.backbone,
            image_size=configuration.image_size,
            trainable_blocks=configuration.trainable_blocks,
            n_classes=n_classes,
            dropout=dropout,
        )
    else:
        hidden = train.hidden if isinstance(configuration, params.Mlp) else []
        n_l = (split.images[0].numel(), *hidden, n_classes)
        shape = MyNetShape(n_l=n_l, activation=train.activation, dropout=dropout)
    return Card(
        configuration=name,
        shape=shape,
        features=split.features,
        flip_average=configuration.flip_average,
        classes=split.classes,
        mean=mean,
        std=std,
    )


def build(shape: Shape, seed: int, pretrained: bool = True) -> nn.Module:
    """A new network with PyTorch's initial weights for ``seed``; the global random state stays as it was.

    Args:
        shape: what to build.
        seed: of the weights.
        pretrained: whether a backbone gets the weights that it learned elsewhere, and not random ones.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match shape:
            case MyNetShape():
                return MyNet(shape.n_l, shape.activation, "identity", shape.dropout)
            case CnnShape():
                return Cnn(shape.channels, shape.n_classes, shape.dropout)
            case TransferShape():
                arguments = shape.model_dump(exclude={"kind"})
                return transfer.Transfer(**arguments, pretrained=pretrained)


def save(path: Path, card: Card, models: Mapping[str, nn.Module], accuracies: Mapping[str, float | None]) -> None:
    """Write ``models``, one or several of the same kind, each under its key.

    Args:
        path: where to.
        card: of all of them.
        models: by key.
        accuracies: of ``ACCURACIES``, what is known; a mean if there are several.
    """
    tensors = {f"{key}/{name}": t for key, model in models.items() for name, t in model.state_dict().items()}
    files.write_tensors(
        path, tensors, {"card": card.model_dump(), "keys": list(models), "accuracies": dict(accuracies)}
    )


def load(path: Path) -> tuple[Card, dict[str, nn.Module], dict[str, float | None]]:
    """Read what :func:`save` wrote: the card, the models in evaluation mode, the accuracies.

    Raises:
        UserError: the file is missing, damaged, or another one of this pipeline's.
    """
    tensors, about = files.read_tensors(path)
    if "card" not in about:
        names = sorted({name.partition("/")[0] for name in tensors})
        raise UserError(f"{path} is not a model, but holds {', '.join(names)}; the models are in data/models/")
    try:
        card = Card.model_validate(about["card"])
        models = {}
        for key in about["keys"]:
            models[key] = build(card.shape, seed=0, pretrained=False).eval()
            prefix = f"{key}/"
            models[key].load_state_dict(
                {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            )
        return card, models, about["accuracies"]
    except (KeyError, ValidationError, RuntimeError) as error:
        raise files.damaged(path, error) from error


def n_parameters(model: nn.Module) -> int:
    """How many numbers it learns; what is frozen does not count."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def inputs(card: Card, images: Tensor) -> Tensor:
    """What the network of ``card`` reads for uint8 pictures, N x 3 x 32 x 32."""
    if card.features:
        return transfer.features(images, **card.features.model_dump())
    return splits.normalise(images, card.mean, card.std)


@torch.no_grad()
def logits(model: nn.Module, x: Tensor, flip_average: bool = False) -> Tensor:
    """The outputs for inputs ``x``, N x classes; with ``flip_average`` their mean over pictures and mirror images."""
    outputs = torch.cat([model(batch) for batch in torch.split(x, BATCH)])
    return (outputs + logits(model, x.flip(-1))) / 2 if flip_average else outputs


def probabilities(model: nn.Module, x: Tensor, flip_average: bool = False) -> Tensor:
    """The softmax of the logits, float64, N x classes."""
    return torch.softmax(logits(model, x, flip_average).double(), 1)
