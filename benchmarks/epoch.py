"""One epoch of the five configurations' network: ours, what a notebook does, the best of PyTorch, the bare products."""

import shutil
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.measure import Row, interleaved, row, seconds
from cifar2 import dataset, models, training
from cifar2.params import Params

TRAIN = Path("data/prepared/train.safetensors")
CONFIGURATION = "fine"
ROUNDS = 21
DATALOADER_ROUNDS = 5


class Pictures(Dataset[tuple[Tensor, int]]):
    """The pictures as torchvision's CIFAR10 serves them: an array in memory, each by way of PIL and the transforms."""

    def __init__(self, split: dataset.Split, params: Params) -> None:
        self.images = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels: list[int] = split.labels.tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(params.normalise.mean, params.normalise.std)]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


def sequential(params: Params, classes: int) -> nn.Sequential:
    """The network as PyTorch's users write it."""
    n_l = (3 * 32 * 32, *params.train.hidden, classes)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(n_l):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def by_autograd(
    params: Params, data: training.Examples, compiled: bool = False, **options: bool
) -> Callable[[], object]:
    """An epoch by PyTorch alone, from tensors in memory."""
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


def from_dataloader(params: Params, split: dataset.Split) -> Callable[[], object]:
    """An epoch as a notebook does it: per-sample transforms, ``DataLoader``, ``loss.backward()``, ``SGD``."""
    loader = DataLoader(Pictures(split, params), params.train.batch_size, shuffle=True)
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


def ours(params: Params, data: training.Examples, classes: tuple[str, ...], **changes: object) -> Callable[[], object]:
    """The next epoch of the project's own training loop."""
    settings = params.train.model_copy(update={"epochs": 10**6, **changes})
    card = models.describe(CONFIGURATION, settings, params.normalise, classes)
    network = models.build(card, seed=0)
    epochs = training.train(network, data, None, params.configs[CONFIGURATION], settings, seed=0)
    return lambda: next(epochs)


def products(params: Params, data: training.Examples) -> Callable[[], object]:
    """The matrix products of an epoch and nothing else: each batch in turn, results into memory reserved before."""
    n_l = (data.x[0].numel(), *params.train.hidden, int(data.y.max()) + 1)
    layers = range(1, len(n_l))
    generator = torch.Generator().manual_seed(0)
    w = {l: torch.randn(n_l[l], n_l[l - 1], generator=generator) / n_l[l - 1] ** 0.5 for l in layers}
    dw = {l: torch.empty_like(w[l]) for l in layers}
    largest = params.train.batch_size
    a_buffer = {l: torch.empty(largest, n_l[l]) for l in layers}
    delta_buffer = {l: torch.randn(largest, n_l[l], generator=generator) for l in layers}

    @torch.no_grad()
    def epoch() -> None:
        for x in torch.split(data.x.flatten(1), largest):
            a = {0: x, **{l: a_buffer[l][: len(x)] for l in layers}}
            delta = {l: delta_buffer[l][: len(x)] for l in layers}
            for l in layers:
                torch.mm(a[l - 1], w[l].t(), out=a[l])
            for l in reversed(layers):
                torch.mm(delta[l].t(), a[l - 1], out=dw[l])
                if l > 1:
                    torch.mm(delta[l], w[l], out=delta[l - 1])

    return epoch


def hyperparameters(params: Params) -> dict[str, Any]:
    """What both optimizers get."""
    return params.configs[CONFIGURATION].model_dump(include={"lr", "momentum", "weight_decay"})


def rows(params: Params) -> list[Row]:
    """The rows about an epoch."""
    split = dataset.load(TRAIN)
    data = training.examples(split, params.normalise)
    rivals = {
        "autograd": by_autograd(params, data),
        "autograd, foreach": by_autograd(params, data, foreach=True),
        "autograd, fused": by_autograd(params, data, fused=True),
    }
    if shutil.which("g++") or shutil.which("clang++"):
        rivals["torch.compile, fused"] = by_autograd(params, data, compiled=True, fused=True)
    contenders = {
        "ours": ours(params, data, split.classes),
        "bfloat16": ours(params, data, split.classes, precision="bfloat16"),
        "products": products(params, data),
        **rivals,
    }
    found = interleaved({name: partial(seconds, work) for name, work in contenders.items()}, ROUNDS)
    best = min(rivals, key=lambda name: sorted(found[name])[ROUNDS // 2])

    slow = {name: contenders[name] for name in ("ours", "products")} | {"dataloader": from_dataloader(params, split)}
    slowly = interleaved({name: partial(seconds, work) for name, work in slow.items()}, DATALOADER_ROUNDS)
    return [
        row(
            "epoch_vs_dataloader",
            "an epoch of training against DataLoader, autograd and torch.optim.SGD",
            slowly["ours"],
            slowly["dataloader"],
            "s",
            ">= 4",
        ),
        row(
            "floor_vs_dataloader",
            "the bare matrix products of an epoch against the same: what no epoch on this machine can surpass",
            slowly["products"],
            slowly["dataloader"],
            "s",
            ">= 4",
        ),
        row(
            "epoch_vs_best_torch",
            f"an epoch against the best of PyTorch on tensors in memory: {best}",
            found["ours"],
            found[best],
            "s",
            ">= 1.1",
        ),
        *(
            row(
                f"epoch_vs_{name.replace(', ', '_').replace('.', '_')}",
                f"an epoch against {name}",
                found["ours"],
                found[name],
                "s",
            )
            for name in rivals
        ),
        row(
            "epoch_vs_floor",
            "an epoch against its matrix products alone",
            found["ours"],
            found["products"],
            "s",
            "<= 1.1",
        ),
        row(
            "bf16_vs_float32",
            "an epoch with bfloat16 products against float32",
            found["bfloat16"],
            found["ours"],
            "s",
            ">= 1.6",
        ),
    ]
