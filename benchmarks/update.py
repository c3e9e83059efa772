"""The update of the parameters alone, directly after the products that compute the gradient and fill the caches."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from benchmarks.epoch import the_network
from benchmarks.measure import Row, interleaved, row, seconds
from benchmarks.rivals import CONFIGURATION, hyperparameters, sequential, the_examples
from cifar2.dataset import splits
from cifar2.inplace import InPlace
from cifar2.params import Params
from cifar2.sgd import SGD

TRAIN = Path("data/prepared/train.safetensors")
STEPS = 36
ROUNDS = 21


def rows(params: Params) -> list[Row]:
    """The rows about the update."""
    split = splits.load(TRAIN)
    data = the_examples(params, split)
    x = data.x[: params.train.batch_size].flatten(1)
    deltas = torch.randn(params.train.batch_size, params.train.hidden[0]) / params.train.batch_size
    momentum = params.configs[CONFIGURATION].momentum
    descent = InPlace(
        the_network(params, split.classes),
        data.x,
        data.y,
        params.train.batch_size,
        momentum=momentum,
        weight_decay=params.configs[CONFIGURATION].weight_decay,
    )

    def products(beta: float) -> float:
        """Milliseconds of the largest gradient product, added to ``beta`` times the previous content of its result."""
        start = time.perf_counter()
        for _ in range(STEPS):
            descent.weight_sums[1].addmm_(deltas.t(), x, beta=beta)
        return (time.perf_counter() - start) / STEPS * 1e3

    def after_products(update: Callable[[], object], weight: Tensor, result: Tensor) -> float:
        """Milliseconds of an update, directly after the largest products with its own weights and gradient."""
        total = 0.0
        with torch.no_grad():
            for _ in range(STEPS):
                torch.mm(x, weight.t())
                result.addmm_(deltas.t(), x, beta=0)
                total += seconds(update)
        return total / STEPS * 1e3

    def by(kind: Callable[..., torch.optim.Optimizer], **options: bool) -> Callable[[], float]:
        parameters = list(sequential(params, len(split.classes)).parameters())
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer = kind(parameters, **hyperparameters(params), **options)
        return partial(after_products, optimizer.step, parameters[0], cast(Tensor, parameters[0].grad))

    found = interleaved(
        {
            "passes": partial(
                after_products, partial(descent._update, 0.01), descent.weights[1], descent.weight_sums[1]
            ),
            "product": partial(products, 0.0),
            "product with momentum": partial(products, momentum),
            "SGD": by(SGD),
            "foreach": by(torch.optim.SGD, foreach=True),
            "fused": by(torch.optim.SGD, fused=True),
        },
        ROUNDS,
    )
    # Ours: the two passes over the parameters, and the extra time of the product with momentum.
    ours = [
        passes + with_momentum - without
        for passes, with_momentum, without in zip(
            found["passes"], found["product with momentum"], found["product"], strict=True
        )
    ]
    return [
        row(
            "update_vs_fused",
            "the update against torch.optim.SGD(fused=True)",
            ours,
            found["fused"],
            "ms",
            "<= 1",
        ),
        row(
            "update_vs_foreach",
            "the update against torch.optim.SGD(foreach=True)",
            ours,
            found["foreach"],
            "ms",
        ),
        row(
            "momentum_in_product",
            "the largest gradient product, with momentum against without",
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
