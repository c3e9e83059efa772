"""How far a mean over seeds and pictures may be from what other seeds and pictures would give."""

import math

from torch import Tensor


def standard_error(values: Tensor) -> float:
    """The standard error of the mean of ``values`` (seeds x examples), both seeds and examples being samples.

    The variance of a mean over S seeds and N examples is that over the examples (of the seeds' means) / N, plus that
    over the seeds (of the examples' means) / S.  With one seed the second part is unknown, and left out.
    """
    values = values.double()
    variance = values.mean(0).var().item() / values.shape[1]
    if len(values) > 1:
        variance += values.mean(1).var().item() / len(values)
    return math.sqrt(variance)
