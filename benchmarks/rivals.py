"""The rivals of the project: the same network trained with plain PyTorch."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cifar2.dataset import splits
from cifar2.dataset.examples import Examples, examples
from cifar2.params import Params

CONFIGURATION = "fine"


class Images(Dataset[tuple[Tensor, int]]):
    """The images as in torchvision's CIFAR10: from an array in memory, through PIL and the transforms."""

    def __init__(self, split: splits.Split, params: Params) -> None:
        self.images = split.x.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels: list[int] = split.labels.tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(params.normalise.mean, params.normalise.std)]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


def sequential(params: Params, classes: int) -> nn.Sequential:
    """The same network as an ``nn.Sequential``."""
    n_l = (3 * 32 * 32, *params.train.hidden, classes)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(n_l):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def by_autograd(params: Params, data: Examples, compiled: bool = False, **options: bool) -> Callable[[], object]:
    """An epoch of plain PyTorch, on tensors in memory."""
    network = sequential(params, int(data.y.max()) + 1)
    optimizer = torch.optim.SGD(network.parameters(), **hyperparameters(params), **options)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(network(x), y)

    loss_function = torch.compile(loss_of) if compiled else loss_of

    def epoch() -> float:
        total = torch.zeros(())
        for batch in torch.split(torch.randperm(len(data.y)), params.train.batch_size):
            optimizer.zero_grad()
            loss = loss_function(data.x[batch], data.y[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach() * len(batch)
        return total.item() / len(data.y)

    return epoch


def from_dataloader(params: Params, split: splits.Split) -> Callable[[], object]:
    """An epoch as in most tutorials: per-image transforms, ``DataLoader``, ``loss.backward()``, ``SGD``."""
    loader = DataLoader(Images(split, params), params.train.batch_size, shuffle=True)
    network = sequential(params, len(split.classes))
    optimizer = torch.optim.SGD(network.parameters(), **hyperparameters(params))

    def epoch() -> float:
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = cross_entropy(network(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(y)
        return total / len(split.labels)

    return epoch


def the_examples(params: Params, split: splits.Split) -> Examples:
    """The training examples that all contenders share."""
    return examples(split, params.normalise.mean, params.normalise.std)


def hyperparameters(params: Params) -> dict[str, Any]:
    """The hyperparameters of all optimizers."""
    return params.configs[CONFIGURATION].model_dump(include={"lr", "momentum", "weight_decay"})


def epoch_of(name: str, params: Params, split: splits.Split) -> Callable[[], object]:
    """The next epoch of the rival called ``name``, a key of ``AUTOGRAD`` or ``DATALOADER``."""
    if name == DATALOADER:
        return from_dataloader(params, split)
    return by_autograd(params, the_examples(params, split), **AUTOGRAD[name])


DATALOADER = "DataLoader"
AUTOGRAD: dict[str, dict[str, bool]] = {
    "autograd": {},
    "autograd, foreach": {"foreach": True},
    "autograd, fused": {"fused": True},
    "torch.compile, fused": {"compiled": True, "fused": True},
}
