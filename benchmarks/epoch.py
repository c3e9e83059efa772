"""The time of an epoch of MyNet: ours, a DataLoader loop, the best plain PyTorch, and the matrix products alone."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch

from benchmarks.measure import Row, interleaved, row, seconds, warm
from benchmarks.rivals import AUTOGRAD, CONFIGURATION, DATALOADER, the_examples
from cifar2.dataset import splits
from cifar2.dataset.examples import CPU, Examples
from cifar2.mynet import MyNet
from cifar2.params import Params
from cifar2.training import hardware, loop

TRAIN = Path("data/prepared/train.safetensors")
ROUNDS = 9
DATALOADER_ROUNDS = 3
# More epochs than any benchmark runs.
EPOCHS = 1000
# These settings are measured, independent of params.yaml.
BY_HAND = {"gradients": "in_place", "precision": "float32", "device": "cpu"}


def ours(params: Params, data: Examples, classes: tuple[str, ...], **changes: object) -> Callable[[], object]:
    """The next epoch of the project's own training loop."""
    settings = params.train.model_copy(update={"epochs": EPOCHS, **BY_HAND, **changes})
    network = the_network(params, classes)
    epochs = loop.train(network, data, None, params.configs[CONFIGURATION], settings, seed=0)
    return lambda: next(epochs)


def the_network(params: Params, classes: Sequence[str]) -> MyNet:
    """MyNet with the weights of seed 0."""
    torch.manual_seed(0)
    return MyNet((3 * 32 * 32, *params.train.hidden, len(classes)), params.train.activation, "identity")


def products(params: Params, data: Examples) -> Callable[[], object]:
    """The matrix products of an epoch and nothing else, batch after batch, into memory that is reserved once."""
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


class Rival:
    """One of ``rivals`` in a process of its own, without the environment variables that this project sets."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.rival", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def seconds(self) -> float:
        """Train another epoch, and return its time in seconds."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the process has no pipes")
        self.process.stdin.write("epoch\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> None:
        """End the process."""
        self.process.communicate()


def rivals() -> list[str]:
    """The rivals of ``AUTOGRAD`` that run here; ``torch.compile`` needs a compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    return [name for name in AUTOGRAD if compiler or "compile" not in name]


def rows(params: Params) -> list[Row]:
    """The rows about an epoch."""
    split = splits.load(TRAIN)
    data = the_examples(params, split)
    has_bfloat16 = hardware.product_dtype("bfloat16", CPU) == torch.bfloat16
    others = {name: Rival(name) for name in rivals()}
    dataloader = Rival(DATALOADER)
    contenders = {
        "ours": partial(seconds, ours(params, data, split.classes)),
        "products": partial(seconds, products(params, data)),
        **(
            {"bfloat16": partial(seconds, ours(params, data, split.classes, precision="bfloat16"))}
            if has_bfloat16
            else {}
        ),
    }
    turns = contenders | {name: rival.seconds for name, rival in others.items()}
    found = interleaved({name: partial(warm, turn) for name, turn in turns.items()}, ROUNDS)
    best = min(others, key=lambda name: median(found[name]))
    slow = {name: contenders[name] for name in ("ours", "products")} | {"dataloader": dataloader.seconds}
    slowly = interleaved({name: partial(warm, turn) for name, turn in slow.items()}, DATALOADER_ROUNDS)
    for rival in (dataloader, *others.values()):
        rival.end()
    bfloat16 = (
        [
            row(
                "bf16_vs_float32",
                "an epoch with bfloat16 products against float32",
                found["bfloat16"],
                found["ours"],
                "s",
                ">= 1.6",
                faster=True,
            )
        ]
        if has_bfloat16
        else []
    )
    return [
        row(
            "epoch_vs_dataloader",
            "an epoch of training against DataLoader, autograd and torch.optim.SGD",
            slowly["ours"],
            slowly["dataloader"],
            "s",
            ">= 4",
            faster=True,
        ),
        row(
            "floor_vs_dataloader",
            "the matrix products of an epoch alone, a lower bound of its time, against the same",
            slowly["products"],
            slowly["dataloader"],
            "s",
            ">= 4",
            faster=True,
        ),
        row(
            "epoch_vs_best_torch",
            f"an epoch against the best plain PyTorch, on tensors in memory: {best}",
            found["ours"],
            found[best],
            "s",
            ">= 1.1",
            faster=True,
        ),
        *(
            row(
                f"epoch_vs_{name.replace(', ', '_').replace('.', '_')}",
                f"an epoch against {name}",
                found["ours"],
                found[name],
                "s",
                faster=True,
            )
            for name in others
        ),
        row(
            "epoch_vs_floor",
            "an epoch against its matrix products alone",
            found["ours"],
            found["products"],
            "s",
            "<= 1.1",
        ),
        *bfloat16,
    ]
