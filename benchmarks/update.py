"""The update alone, where it happens: right after the products that make the gradient and fill the caches with them."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.epoch import CONFIGURATION, hyperparameters, sequential
from benchmarks.measure import Row, interleaved, row, seconds
from cifar2 import dataset, models, training
from cifar2.inplace import InPlace
from cifar2.params import Params
from cifar2.sgd import SGD

TRAIN = Path("data/prepared/train.safetensors")
STEPS = 36
ROUNDS = 21


def rows(params: Params) -> list[Row]:
    """The rows about the update."""
    split = dataset.load(TRAIN)
    data = training.examples(split, params.normalise)
    x = data.x[: params.train.batch_size].flatten(1)
    deltas = torch.randn(params.train.batch_size, params.train.hidden[0]) / params.train.batch_size
    momentum = params.configs[CONFIGURATION].momentum
    network = models.build(models.describe("", params.train, params.normalise, split.classes), seed=0)
    descent = InPlace(
        network, params.train.activation, data.x, data.y, params.train.batch_size, **hyperparameters(params)
    )
    gradient = torch.zeros_like(descent.weights[1])

    def products(beta: float, result: torch.Tensor) -> float:
        """Milliseconds of the largest gradient product, added to ``beta`` times what ``result`` held."""
        start = time.perf_counter()
        for _ in range(STEPS):
            result.addmm_(deltas.t(), x, beta=beta)
        return (time.perf_counter() - start) / STEPS * 1e3

    def after_products(update: Callable[[], object]) -> float:
        """Milliseconds of an update, each of them after the largest of the products."""
        total = 0.0
        with torch.no_grad():
            for _ in range(STEPS):
                torch.mm(x, descent.weights[1].t())
                gradient.addmm_(deltas.t(), x, beta=0)
                total += seconds(update)
        return total / STEPS * 1e3

    def optimizer(kind: Callable[..., torch.optim.Optimizer], **options: bool) -> Callable[[], object]:
        theirs: nn.Module = sequential(params, len(split.classes))
        for parameter in theirs.parameters():
            parameter.grad = torch.zeros_like(parameter)
        return kind(theirs.parameters(), **hyperparameters(params), **options).step

    contenders = {
        "ours": descent._update,
        "SGD": optimizer(SGD),
        "foreach": optimizer(torch.optim.SGD, foreach=True),
        "fused": optimizer(torch.optim.SGD, fused=True),
    }
    found = interleaved(
        {
            **{name: partial(after_products, update) for name, update in contenders.items()},
            "product": partial(products, 0.0, gradient),
            "product with momentum": partial(products, momentum, descent.weight_sums[1]),
        },
        ROUNDS,
    )
    return [
        row(
            "update_vs_fused",
            "the update against torch.optim.SGD(fused=True)",
            found["ours"],
            found["fused"],
            "ms",
            "<= 1",
        ),
        row(
            "update_vs_foreach",
            "the update against torch.optim.SGD(foreach=True)",
            found["ours"],
            found["foreach"],
            "ms",
        ),
        row(
            "momentum_in_product",
            "the largest gradient product adding to momentum times velocity, against without",
            found["product with momentum"],
            found["product"],
            "ms",
        ),
        row(
            "sgd_class_vs_foreach",
            "cifar2.sgd.SGD, the reference, against torch.optim.SGD(foreach=True)",
            found["SGD"],
            found["foreach"],
            "ms",
        ),
    ]
