"""The uncertainty of means over seeds and images, which are both samples."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.special import ndtri, stdtrit
from torch import Tensor

LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean over seeds and examples.

    Attributes:
        mean: the mean.
        standard_error: its standard error.
        degrees_of_freedom: of the t distribution that (mean - true mean) / standard error approximately follows.
    """

    mean: float
    standard_error: float
    degrees_of_freedom: float

    def interval(self, comparisons: int = 1) -> list[float]:
        """The 95 % t interval, [low, high].

        Args:
            comparisons: number of intervals of which all shall hold with 95 % (Bonferroni's correction).
        """
        margin = quantile(self.degrees_of_freedom, comparisons) * self.standard_error
        return [self.mean - margin, self.mean + margin]


def estimate(values: Tensor) -> Estimate:
    """The mean of ``values``, seeds x examples, where seeds and examples are both random and each meets each other.

    A value is the mean plus an effect of its seed, an effect of its example, and a rest.  The mean square of each of
    the three (as in a two-way analysis of variance) estimates its variance.  That of a mean over S seeds and N examples
    is (seeds + examples - rest) / (S N): the first two contain the rest, which counts once.  A negative effect counts
    as none.  The degrees of freedom are Satterthwaite's ("An approximate distribution of estimates of variance
    components", 1946).  With one seed the effect of the seed is unknown: the uncertainty is that of the examples alone.
    """
    values = values.double()
    n_seeds, n = values.shape
    by_seed, by_example = values.mean(1), values.mean(0)
    mean = by_seed.mean()
    examples = n_seeds * by_example.var().item()
    if n_seeds == 1:
        return Estimate(mean.item(), math.sqrt(examples / n), n - 1.0)
    rest = (values - by_seed[:, None] - by_example + mean).square().sum().item() / ((n_seeds - 1) * (n - 1))
    seeds, examples = max(n * by_seed.var().item(), rest), max(examples, rest)
    total = seeds + examples - rest
    spread = seeds**2 / (n_seeds - 1) + examples**2 / (n - 1) + rest**2 / ((n_seeds - 1) * (n - 1))
    return Estimate(mean.item(), math.sqrt(total / (n_seeds * n)), total**2 / spread if spread else n - 1.0)


def standard_error(values: Tensor) -> float:
    """The standard error of the mean of ``values``, seeds x examples (see ``estimate``)."""
    return estimate(values).standard_error


def prediction_interval(runs: Sequence[float]) -> list[float]:
    """The 95 % interval for the result of one new run, from those of two or more that differ by their seed."""
    margin = quantile(len(runs) - 1) * stdev(runs) * math.sqrt(1 + 1 / len(runs))
    return [fmean(runs) - margin, fmean(runs) + margin]


def quantile(degrees_of_freedom: float, comparisons: int = 1) -> float:
    """The quantile of the t distribution for a two-sided 95 % interval, or for several that hold together."""
    return float(stdtrit(degrees_of_freedom, 1 - (1 - LEVEL) / (2 * comparisons)))


def wilson_interval(n_correct: int, n: int) -> list[float]:
    """Wilson's 95 % interval for a fraction of correct predictions, [low, high].

    (Wilson, "Probable inference, the law of succession, and statistical inference", 1927.)
    """
    p, z = n_correct / n, float(ndtri((1 + LEVEL) / 2))
    centre, margin = 2 * n_correct + z**2, z * math.sqrt(4 * n_correct * (1 - p) + z**2)
    low, high = (centre - margin) / (2 * (n + z**2)), (centre + margin) / (2 * (n + z**2))
    return [low if n_correct else 0.0, high if n_correct < n else 1.0]


def pseudo_values(whole: float, without: Tensor) -> Tensor:
    """The jackknife's pseudo-values, one per example, of a statistic that is no mean; their mean has its uncertainty.

    (Tukey, "Bias and confidence in not-quite large samples", 1958.)

    Args:
        whole: the statistic of all N examples.
        without: the statistic of all examples but one, for each, N.
    """
    return len(without) * whole - (len(without) - 1) * without
