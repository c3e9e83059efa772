"""One trial of a sweep: a configuration trained once a seed, of which the numbers are kept and the models are not."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import nn

from cifar2 import params
from cifar2.dataset import splits
from cifar2.networks import classifier
from cifar2.training import hardware, loop

# What a table of trials shows of each.
OUTCOME = ("val_accuracy", "val_accuracy_se", "val_loss", "val_loss_se", "train_accuracy", "gap", "stopped", "diverged")


class Report(NamedTuple):
    """What a trial says of itself, after each epoch of its first seed, and at its end.

    Attributes:
        score: the validation accuracy, 0 to 1; 0 when it diverged.
        outcome: ``OUTCOME``, the last two of which are the epoch, if it is none of the end, and why it diverged.
        done: whether this is the end.
    """

    score: float
    outcome: dict[str, Any]
    done: bool


class Trials(NamedTuple):
    """What trials are of: the parameters, with the sweep's seeds, the data, and the configurations by key."""

    everything: params.Params
    train: splits.Split
    val: splits.Split
    configurations: Mapping[str, params.AnyConfiguration]

    def run(self, key: str) -> Iterator[Report]:
        """Train the configuration under ``key`` as stage `train` would."""
        configuration, settings = self.configurations[key], self.everything.train
        card = classifier.describe("trial", configuration, self.everything, self.train)
        device = hardware.device(settings.device)
        if card.convolves:
            hardware.fix_convolutions(settings.threads)
        train, val = (loop.examples(part, card.mean, card.std, device) for part in (self.train, self.val))
        curves: list[list[loop.Epoch]] = []
        networks: list[nn.Module] = []
        outcome: dict[str, Any] = dict.fromkeys(OUTCOME)
        try:
            for seed in settings.seeds:
                networks.append(classifier.build(card.shape, seed).to(device))
                curves.append([])
                for epoch in loop.train(networks[-1], train, val, configuration, settings, seed):
                    curves[-1].append(epoch)
                    if seed == settings.seeds[0]:
                        so_far = {key: value for key, value in epoch._asdict().items() if key in outcome}
                        yield Report(epoch.val_accuracy or 0.0, outcome | so_far | {"stopped": epoch.epoch}, False)
        except loop.Diverged as reason:
            yield Report(0.0, outcome | {"diverged": str(reason)}, True)
        else:
            summary = loop.summarise(curves, networks, train, val, configuration)
            known = {key: summary[key] for key in OUTCOME if key in summary}
            yield Report(summary["val_accuracy"], outcome | known, True)
