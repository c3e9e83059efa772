"""Learning-rate schedules: one rate per step."""

import math

# One cycle: fraction of the steps in which the rate rises, and highest rate divided by first rate.
RISE, START = 0.3, 25.0


def learning_rates(schedule: str, lr: float, steps: int) -> list[float]:
    """The learning rate of each of ``steps`` steps.

    Args:
        schedule: ``constant``; ``cosine``, half a cosine wave from ``lr`` towards 0 (Loshchilov and Hutter, "SGDR",
            2017, without restarts); ``one_cycle``, half a cosine wave up to ``lr`` and another down to 0 (Smith and
            Topin, "Super-convergence", 2018).
        lr: the highest rate.
        steps: number of steps of the run.
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


def _between(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
