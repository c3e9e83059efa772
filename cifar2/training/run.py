"""The training of one configuration: the set-up that stages ``train`` and ``refit`` and the trials of a sweep share."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import nn

from cifar2.dataset import splits
from cifar2.dataset.examples import examples
from cifar2.dataset.splits import Split
from cifar2.evaluation.summary import Results
from cifar2.networks import classifier
from cifar2.params import AnyConfiguration, Params
from cifar2.training import hardware, record
from cifar2.training.checkpoint import Checkpoint
from cifar2.training.loop import train
from cifar2.training.record import Epoch


class Run:
    """A configuration with its data on the device, ready to train once per seed.

    Args:
        name: name of the configuration.
        configuration: the configuration.
        params: all parameters.
        train_split: the training set.
        val_split: the validation set, if there is one.

    Attributes:
        card: the card of the classifiers.
        networks: the trained networks, one per finished seed.
        curves: the epochs so far, one list per seed.
        n_parameters: number of trainable parameters of a network; 0 before the first seed.
        at_once: number of seeds to train at once, each in a process of its own: as many as there are cores; one at a
            time on a GPU, and for a classifier of features, which takes seconds.

    Raises:
        UserError: the device or the backbone is not available here.
    """

    def __init__(
        self,
        name: str,
        configuration: AnyConfiguration,
        params: Params,
        train_split: Split,
        val_split: Split | None,
    ) -> None:
        self.configuration, self.params = configuration, params
        self.device = hardware.device(params.train.device)
        self.card = classifier.describe(name, configuration, params, train_split)
        cores = torch.get_num_threads()
        hardware.fix_instructions(params.train.instructions)
        if self.card.convolves:
            hardware.fix_threads(params.train.threads)
        threads = params.train.threads if self.card.convolves else 1
        self.at_once = cores // threads if self.device.type == "cpu" and not self.card.features else 1
        self.train = examples(train_split, self.card.mean, self.card.std, self.device)
        self.val = examples(val_split, self.card.mean, self.card.std, self.device) if val_split else None
        self.networks: list[nn.Module] = []
        self.curves: list[list[Epoch]] = []
        self.n_parameters = 0

    @classmethod
    def load(cls, name: str, configuration: AnyConfiguration, params: Params, inputs: Sequence[Path]) -> Self:
        """A run on the training and the validation set in two files."""
        return cls(name, configuration, params, *map(splits.load, inputs))

    def epochs(self, seeds: Sequence[int], checkpoints: Path | None = None) -> Iterator[Epoch]:
        """Train a network per seed, and yield each epoch.

        Args:
            seeds: the seeds.
            checkpoints: the folder for checkpoints, if they are wanted.

        Raises:
            UserError: a checkpoint is corrupted, or cannot be written.
            Diverged: a loss is infinite or not a number.
        """
        for seed in seeds:
            network = self.start(seed)
            checkpoint = (
                Checkpoint(checkpoints / f"seed{seed}.safetensors", self.params.checkpoints.seconds)
                if checkpoints
                else None
            )
            for epoch in train(network, self.train, self.val, self.configuration, self.params.train, seed, checkpoint):
                self.curves[-1].append(epoch)
                yield epoch
            self.networks.append(network)

    def start(self, seed: int) -> nn.Module:
        """The untrained network of ``seed``, whose epochs go to the last of ``curves``."""
        network = classifier.build(self.card, seed).to(self.device)
        self.n_parameters = classifier.n_parameters(network)
        self.curves.append([])
        return network

    def results(self) -> Results:
        """The validation results of all seeds; needs a validation set."""
        assert self.val  # noqa: S101 (for mypy)
        return record.results(self.curves, self.networks, self.train, self.val, self.configuration)

    @property
    def kept_epochs(self) -> list[int]:
        """The epoch of the weights of each network."""
        return [record.kept_epoch(curve, self.configuration) for curve in self.curves]
