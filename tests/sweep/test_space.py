import math
import re
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar2 import params
from cifar2.errors import UserError
from cifar2.sweep import space

BASE = params.Mlp(model="mlp", family="mlp", input="prepared", lr=0.1, momentum=0.9, weight_decay=0.0)


def ranges(**values):
    return {name: params.Range(**kind) for name, kind in values.items()}


MIXED = ranges(
    lr={"log_uniform": [1e-4, 1.0]},
    momentum={"uniform": [0.0, 0.99]},
    dropout={"choice": [0.0, 0.5]},
    shift={"grid": [0, 1, 2]},
    flip={"grid": [False, True]},
)


@given(st.integers(0, 2**32 - 1), st.integers(0, 10_000))
def test_values_lie_in_their_ranges(seed, number):
    point = space.point(MIXED, seed, number)
    assert list(point) == list(MIXED)
    assert 1e-4 <= point["lr"] <= 1
    assert 0 <= point["momentum"] <= 0.99
    assert point["dropout"] in (0.0, 0.5)


def test_point_depends_on_the_seed_and_its_number_alone():
    """And on no other parameter: these values are the same on every machine, forever."""
    assert space.point(MIXED, 0, 6) == space.point(dict(reversed(MIXED.items())), 0, 6)
    alone = ranges(lr={"log_uniform": [1e-4, 1.0]})
    assert space.point(alone, 0, 6)["lr"] == space.point(MIXED, 0, 6)["lr"] == 0.00453849
    assert space.point(alone, 1, 6) != space.point(alone, 0, 6) != space.point(alone, 0, 5)


def test_ranges_are_uniform_and_choices_equally_frequent():
    points = [space.point(MIXED, 0, n) for n in range(1000)]
    logarithms = [math.log10(point["lr"]) for point in points]
    assert median(logarithms) == pytest.approx(-2, abs=0.2)
    assert sum(x < -3 for x in logarithms) == pytest.approx(250, abs=50)
    assert median(point["momentum"] for point in points) == pytest.approx(0.495, abs=0.05)
    assert sum(point["dropout"] == 0 for point in points) == pytest.approx(500, abs=60)


def test_grids_are_combined_and_then_repeated():
    cells = [(p["shift"], p["flip"]) for p in (space.point(MIXED, 0, n) for n in range(7))]
    assert cells == [(0, False), (0, True), (1, False), (1, True), (2, False), (2, True), (0, False)]


def test_configuration_is_the_base_with_other_values():
    configuration = space.configuration(BASE, {"lr": 0.5, "shift": 2})
    assert configuration == BASE.model_copy(update={"lr": 0.5, "shift": 2})
    assert isinstance(configuration, params.Mlp)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shift": 1.5}, "shift must be a valid integer, not 1.5"),
        ({"momentum": 0.0, "nesterov": True}, "needs a momentum above 0 for nesterov"),
    ],
)
def test_invalid_value_is_one_line_that_names_it(values, message):
    with pytest.raises(UserError, match=rf"^params\.yaml: sweep\.space leads to .*{re.escape(message)}.*$"):
        space.configuration(BASE, values)
