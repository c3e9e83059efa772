"""The points of a search space that a sweep tries.

Each is drawn from the seed and its number alone, so that more points leave the first ones as they are.
"""

import itertools
import random
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cifar2.errors import UserError
from cifar2.params import AnyConfiguration, Configuration, Range, changed, explain

# Of numbers drawn from a range: enough for any knob, few enough to be the same by any processor's logarithm.
SIGNIFICANT_DIGITS = 6


def point(space: Mapping[str, Range], seed: int, number: int) -> dict[str, Any]:
    """The value of each parameter of ``space`` at point ``number``, from 0.

    Grids are gone through together, the last one fastest, and begin anew after their last combination; everything else
    is random.
    """
    grids = {name: values.grid for name, values in space.items() if values.grid}
    cells = list(itertools.product(*grids.values()))
    cell = dict(zip(grids, cells[number % len(cells)], strict=True))
    return {name: cell[name] if name in cell else _draw(space[name], f"{seed} {number} {name}") for name in space}


def _draw(values: Range, seed: str) -> Any:  # noqa: ANN401
    share = random.Random(seed).random()  # noqa: S311  # no secret
    if values.choice:
        return values.choice[int(share * len(values.choice))]
    low, high = values.log_uniform or values.uniform or (0.0, 0.0)
    value = low * (high / low) ** share if values.log_uniform else low + (high - low) * share
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
