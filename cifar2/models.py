"""Classifiers on disk: what one needs to know to build and use them, and their weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from cifar2 import files
from cifar2.mynet import MyNet
from cifar2.params import Normalise, Train


class Card(BaseModel):
    """All that is needed to use a classifier's weights on a picture.

    Attributes:
        configuration: the name of the configuration that it was trained with.
        n_l: units of each layer, from the pixel values to the classes.
        activation: of the hidden layers; the outputs are logits.
        classes: what the outputs mean.
        mean, std: the normalisation of its inputs, by channel.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    configuration: str
    n_l: tuple[int, ...]
    activation: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def describe(configuration: str, settings: Train, normalise: Normalise, classes: Sequence[str]) -> Card:
    """The card of a classifier for 32 x 32 colour pictures of ``classes``."""
    return Card(
        configuration=configuration,
        n_l=(3 * 32 * 32, *settings.hidden, len(classes)),
        activation=settings.activation,
        classes=tuple(classes),
        mean=tuple(normalise.mean),
        std=tuple(normalise.std),
    )


def build(card: Card, seed: int) -> MyNet:
    """A new network with PyTorch's initial weights for ``seed``; the global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MyNet(card.n_l, card.activation, "identity")


def save(path: Path, card: Card, models: Mapping[str, MyNet]) -> None:
    """Write ``models``, one or several of the same kind, each under its key."""
    tensors = {f"{key}/{name}": t for key, model in models.items() for name, t in model.state_dict().items()}
    files.write_tensors(path, tensors, {"card": card.model_dump(), "keys": list(models)})


def load(path: Path) -> tuple[Card, dict[str, MyNet]]:
    """Read what :func:`save` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    tensors, about = files.read_tensors(path)
    try:
        card = Card.model_validate(about["card"])
        models = {}
        for key in about["keys"]:
            models[key] = build(card, seed=0)
            prefix = f"{key}/"
            models[key].load_state_dict(
                {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            )
    except (KeyError, ValidationError, RuntimeError) as error:
        raise files.damaged(path, error) from error
    return card, models


@torch.no_grad()
def logits(model: MyNet, x: Tensor) -> Tensor:
    """The outputs for normalised pictures ``x``, N x classes."""
    return torch.cat([model(batch) for batch in torch.split(x, 4096)])


def probabilities(model: MyNet, x: Tensor) -> Tensor:
    """The softmax of the logits, float64, N x classes."""
    return torch.softmax(logits(model, x).double(), 1)
