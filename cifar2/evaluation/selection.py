"""The rule that selects a configuration, and how often it would select each on other images and seeds.

The original report looked at three things: a high validation accuracy, a low and stable validation loss, and a small
gap between training and validation accuracy.  Here that is one rule, applied to means over seeds:

1. Find the configuration with the best validation accuracy, and keep those that are tied with it.
2. Of these, find the one with the lowest validation loss on a bad epoch (its mean plus its standard deviation over the
   last epochs: low *and* steady), and keep those that are tied with it.  Label smoothing and class weights raise the
   loss on purpose, so losses are compared only between configurations with the same.
3. Of these, take the smallest gap.  Of equal ones, here and above, the one named first counts as better.

Two configurations are tied if their difference is within one standard error of the difference, as in the rule of
Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3; it then takes the simplest, and here the
loss and the gap decide.  All configurations are measured on the same images and trained with the same seeds, so the
difference is taken image by image and seed by seed: what makes an image hard for all of them cancels.
"""

from collections.abc import Mapping
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from cifar2.evaluation.summary import Results, mean_loss
from cifar2.evaluation.uncertainty import Estimate, estimate

RULE = (
    "best val_accuracy; tied within one standard error of the difference: lowest val_loss + val_loss_std, among equal "
    "label smoothing and class weights; tied again: smallest gap"
)
# The resamples behind a selection frequency, whose standard error is then at most 0.016.
RESAMPLES = 1000


class Candidate(NamedTuple):
    """What the rule looks at: the results of a configuration on validation, and what else its training loss has."""

    results: Results
    label_smoothing: float
    class_weights: str


class Ranked(NamedTuple):
    """One row of the ranking.

    Attributes:
        rank: 1 is selected.
        name: name of the configuration.
        tied: whether step 1 keeps it.
        tied_on_loss: whether step 2 keeps it too.
        behind: the best validation accuracy minus its own.
        behind_se: the standard error of this difference.
        bad_epoch_loss: the validation loss one standard deviation above its mean.
        loss_above: ``bad_epoch_loss`` minus the lowest one that it is compared with; None if step 1 drops it.
        loss_above_se: the standard error of this difference.
    """

    rank: int
    name: str
    tied: bool
    tied_on_loss: bool
    behind: float
    behind_se: float
    bad_epoch_loss: float
    loss_above: float | None
    loss_above_se: float | None


class Selection(NamedTuple):
    """The ranking of all configurations, and the selection within each family and among all.

    Attributes:
        ranked: all configurations, best first.
        best: the selected configuration of each family.
        fraction: how often each configuration is selected from all (see ``frequencies``).
        fraction_of_family: how often each is selected from its family.
    """

    ranked: list[Ranked]
    best: dict[str, str]
    fraction: dict[str, float]
    fraction_of_family: dict[str, float]


def select(candidates: Mapping[str, Candidate], families: Mapping[str, str]) -> Selection:
    """Apply the rule to all ``candidates`` and to those of each family; ``families`` has the family of each."""
    groups: dict[str, dict[str, Candidate]] = {}
    for name, candidate in candidates.items():
        groups.setdefault(families[name], {})[name] = candidate
    return Selection(
        rank(candidates),
        {family: rank(group)[0].name for family, group in groups.items()},
        frequencies(candidates),
        {name: fraction for group in groups.values() for name, fraction in frequencies(group).items()},
    )


def rank(candidates: Mapping[str, Candidate]) -> list[Ranked]:
    """Rank configurations by the rule, best first; all have the same seeds and images."""
    accuracy = {name: fmean(c.results.correct.double().mean(1).tolist()) for name, c in candidates.items()}
    loss = {name: mean_loss(c.results.losses) + fmean(c.results.loss_std.tolist()) for name, c in candidates.items()}
    gap = {name: fmean(c.results.train_accuracy.tolist()) - accuracy[name] for name, c in candidates.items()}

    best = max(candidates, key=accuracy.__getitem__)
    behind = {name: estimate(_correct(candidates[best]) - _correct(c)) for name, c in candidates.items()}
    tied = [name for name in candidates if _is_tie(behind[name])]
    above: dict[str, Estimate] = {}
    for name in tied:
        comparable = [n for n in tied if candidates[n][1:] == candidates[name][1:]]
        lowest = min(comparable, key=loss.__getitem__)
        above[name] = estimate(_bad_epoch(candidates[name]) - _bad_epoch(candidates[lowest]))
    tied_on_loss = [name for name in tied if _is_tie(above[name])]

    def order(name: str) -> tuple[int, float]:
        if name in tied_on_loss:
            return 0, gap[name]
        return (1, loss[name]) if name in tied else (2, -accuracy[name])

    return [
        Ranked(
            i,
            name,
            name in tied,
            name in tied_on_loss,
            behind[name].mean,
            behind[name].standard_error,
            loss[name],
            above[name].mean if name in above else None,
            above[name].standard_error if name in above else None,
        )
        for i, name in enumerate(sorted(candidates, key=order), 1)
    ]


def frequencies(candidates: Mapping[str, Candidate], n_seeds: int | None = None) -> dict[str, float]:
    """How often the rule selects each configuration on resampled images and seeds (a bootstrap), 0 to 1.

    Each of ``RESAMPLES`` resamples draws images and seeds with replacement, the same for all configurations.

    Args:
        candidates: as for ``rank``.
        n_seeds: number of seeds in a resample, by default as many as there are.
    """
    if len(candidates) == 1:
        return dict.fromkeys(candidates, 1.0)
    all_seeds, n_images = next(iter(candidates.values())).results.correct.shape
    generator = torch.Generator().manual_seed(0)
    selected = []
    for _ in range(RESAMPLES):
        seeds = torch.randint(all_seeds, (n_seeds or all_seeds,), generator=generator)
        images = torch.randint(n_images, (n_images,), generator=generator)
        resampled = {name: c._replace(results=c.results.sample(seeds, images)) for name, c in candidates.items()}
        selected.append(rank(resampled)[0].name)
    return {name: selected.count(name) / RESAMPLES for name in candidates}


def _is_tie(difference: Estimate) -> bool:
    return difference.mean <= difference.standard_error


def _correct(candidate: Candidate) -> Tensor:
    return candidate.results.correct.double()


def _bad_epoch(candidate: Candidate) -> Tensor:
    """The loss of each image on a bad epoch, seeds x N."""
    return candidate.results.losses.double() + candidate.results.loss_std[:, None]
