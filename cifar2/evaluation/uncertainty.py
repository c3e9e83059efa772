"""The standard error of a mean over seeds and images."""

import math

from torch import Tensor


def standard_error(values: Tensor) -> float:
    """The standard error of the mean of ``values`` (seeds x examples), where seeds and examples are both samples.

    The variance of a mean over S seeds and N examples is the variance over examples (of the means over seeds) / N, plus
    the variance over seeds (of the means over examples) / S.  With one seed the second term is unknown, and omitted.
    """
    values = values.double()
    variance = values.mean(0).var().item() / values.shape[1]
    if len(values) > 1:
        variance += values.mean(1).var().item() / len(values)
    return math.sqrt(variance)
