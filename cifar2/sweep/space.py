"""The points of a search space.

Each point is drawn from the seed and its number alone, so more points leave the first ones unchanged.
"""

import itertools
import random
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cifar2.errors import UserError
from cifar2.params import AnyConfiguration, Configuration, Range, changed, explain

# Random numbers are rounded to so many digits: enough for any parameter, few enough to hide differences between the
# logarithms of different processors.
SIGNIFICANT_DIGITS = 6


def point(space: Mapping[str, Range], seed: int, number: int) -> dict[str, Any]:
    """The value of each parameter of ``space`` at point ``number``, from 0.

    All combinations of the grids are visited in turn, the last grid fastest, then again from the first.  All other
    values are random.
    """
    grids = {name: values.grid for name, values in space.items() if values.grid}
    cells = list(itertools.product(*grids.values()))
    cell = dict(zip(grids, cells[number % len(cells)], strict=True))
    return {name: cell[name] if name in cell else _draw(space[name], f"{seed} {number} {name}") for name in space}


def _draw(values: Range, seed: str) -> Any:  # noqa: ANN401
    fraction = random.Random(seed).random()  # noqa: S311  # no secret
    if values.choice:
        return values.choice[int(fraction * len(values.choice))]
    low, high = values.log_uniform or values.uniform or (0.0, 0.0)
    value = low * (high / low) ** fraction if values.log_uniform else low + (high - low) * fraction
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def configuration(base: Configuration, values: Mapping[str, Any]) -> AnyConfiguration:
    """``base`` with other values for some of its parameters.

    Raises:
        UserError: a parameter is unknown, or its value is not allowed.
    """
    try:
        return changed(base, values)
    except ValidationError as error:
        raise UserError(f"params.yaml: sweep.space leads to {dict(values)}: {explain(error)}") from None
