"""How the learning rate moves over a run: one number a step."""

import math

# One cycle: the share of the steps in which the rate rises, and by what factor it starts below its top.
RISE, START = 0.3, 25.0


def learning_rates(schedule: str, lr: float, steps: int) -> list[float]:
    """The learning rate of each of ``steps`` steps.

    Args:
        schedule: ``constant``; ``cosine``, from ``lr`` along half a wave towards 0 (Loshchilov and Hutter, "SGDR",
            2017, without restarts); ``one_cycle``, up to ``lr`` and down to 0, both along half a wave (Smith and
            Topin, "Super-convergence", 2018).
        lr: the highest rate.
        steps: in the whole run.
    """
    if schedule == "cosine":
        return [_between(lr, 0.0, step / steps) for step in range(steps)]
    if schedule == "one_cycle":
        rise = RISE * steps
        return [
            _between(lr / START, lr, step / rise) if step < rise else _between(lr, 0.0, (step - rise) / (steps - rise))
            for step in range(steps)
        ]
    return [lr] * steps


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
