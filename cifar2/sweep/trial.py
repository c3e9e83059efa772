"""One trial of a sweep: a configuration trained once per seed.  Its results are kept, its models are not."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cifar2 import params
from cifar2.dataset.splits import Split
from cifar2.evaluation.summary import summarise
from cifar2.training.loop import Diverged
from cifar2.training.run import Run

# The columns of the table of trials.  `stopped`: the epoch at which ASHA stopped the trial, or None; `diverged`: the
# reason, or None.
MEASURED = ("val_accuracy", "val_accuracy_se", "val_loss", "val_loss_se", "train_accuracy", "gap")
OUTCOME = (*MEASURED, "stopped", "diverged")


class Report(NamedTuple):
    """The state of a trial after an epoch of its first seed, or at its end.

    Attributes:
        score: validation accuracy, 0 to 1; 0 if the trial diverged.
        outcome: the values of ``OUTCOME``.
        done: whether the trial has ended.
    """

    score: float
    outcome: dict[str, Any]
    done: bool


class Trials(NamedTuple):
    """The trials of a sweep: all parameters with the seeds of the sweep, the data, and the configurations by key."""

    params: params.Params
    train: Split
    val: Split
    configurations: Mapping[str, params.AnyConfiguration]

    def run(self, key: str) -> Iterator[Report]:
        """Train the configuration under ``key`` as stage `train` does."""
        run = Run("trial", self.configurations[key], self.params, self.train, self.val)
        seeds = self.params.train.seeds
        outcome: dict[str, Any] = dict.fromkeys(OUTCOME)
        try:
            for epoch in run.epochs(seeds):
                if epoch.seed == seeds[0]:
                    so_far = {key: value for key, value in epoch._asdict().items() if key in outcome}
                    yield Report(epoch.val_accuracy or 0.0, outcome | so_far | {"stopped": epoch.epoch}, False)
        except Diverged as reason:
            yield Report(0.0, outcome | {"diverged": str(reason)}, True)
        else:
            summary = summarise(run.results(), run.kept_epochs)
            yield Report(summary.val_accuracy, outcome | {key: getattr(summary, key) for key in MEASURED}, True)


def accuracy(outcome: Mapping[str, Any]) -> float:
    """The validation accuracy of a finished trial; 0 if it diverged or was stopped."""
    return (outcome["stopped"] is None and outcome["val_accuracy"]) or 0.0


def order(row: Mapping[str, Any]) -> tuple[bool, bool, float, float, int]:
    """The sort key of a row of the table: the best first; stopped trials after finished ones, diverged ones last."""
    measured = -(row["val_accuracy"] or 0), row["val_loss"] or 0
    return row["diverged"] is not None, row["stopped"] is not None, *measured, row["trial"]
