"""The rule that selects a configuration.

The original report looked at three things: a high validation accuracy, a low and stable validation loss, and a small
gap between training and validation accuracy.  Here that is one rule, applied to means over seeds:

1. Keep the configurations whose validation accuracy is within one standard error of the best.
2. Of these, keep those whose validation loss on a bad epoch (its mean plus its standard deviation over the last
   epochs: low *and* steady) is within one standard error of the lowest.
3. Of these, take the smallest gap; if even that is equal, the one named first.

"Within one standard error" is the rule of Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3.
The standard error is that of the best configuration (of equally good ones, the smallest); a smaller difference is not
evidence of anything.
"""

from collections.abc import Mapping
from statistics import fmean
from typing import Any, NamedTuple

from cifar2.errors import UserError

RULE = "best val_accuracy; tied within one standard error: lowest val_loss + val_loss_std; tied again: smallest gap"


class Ranked(NamedTuple):
    """One row of the ranking.

    Attributes:
        rank: 1 is selected.
        name: name of the configuration.
        tied: whether step 1 keeps it.
        tied_on_loss: whether step 2 keeps it too.
        bad_epoch_loss: the validation loss one standard deviation above its mean.
        metrics: content of ``metrics/train/NAME.json``.
    """

    rank: int
    name: str
    tied: bool
    tied_on_loss: bool
    bad_epoch_loss: float
    metrics: Mapping[str, Any]


def rank(metrics: Mapping[str, Mapping[str, Any]]) -> list[Ranked]:
    """Rank configurations by the rule, best first; those that diverged (``val_accuracy`` is None) are left out.

    Args:
        metrics: by name, the content of ``metrics/train/NAME.json``.

    Raises:
        UserError: every configuration diverged.
    """
    finished = {name: m for name, m in metrics.items() if m["val_accuracy"] is not None}
    if not finished:
        reasons = "; ".join(f"{name} diverged at {m['diverged']}" for name, m in metrics.items())
        raise UserError(f"nothing to select from: {reasons}")
    best = max(finished.values(), key=lambda m: (m["val_accuracy"], -m["val_accuracy_se"]))
    tied = [n for n, m in finished.items() if m["val_accuracy"] >= best["val_accuracy"] - best["val_accuracy_se"]]
    loss = {name: float(m["val_loss"] + fmean(m["val_loss_std"])) for name, m in finished.items()}
    lowest = min(tied, key=lambda n: (loss[n], finished[n]["val_loss_se"]))
    tied_on_loss = [n for n in tied if loss[n] <= loss[lowest] + finished[lowest]["val_loss_se"]]

    def order(name: str) -> tuple[int, float]:
        m = finished[name]
        if name in tied_on_loss:
            return 0, m["gap"]
        return (1, loss[name]) if name in tied else (2, -m["val_accuracy"])

    return [
        Ranked(i, name, name in tied, name in tied_on_loss, loss[name], finished[name])
        for i, name in enumerate(sorted(finished, key=order), 1)
    ]
