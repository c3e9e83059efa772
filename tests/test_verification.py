import math

import pytest

from cifar2 import verification
from cifar2.gradcheck import Errors
from cifar2.verification import Checks, Comparison

CHECKS = Checks(
    [],
    {},
    Errors(1e-9, 1e-6),
    [
        Comparison("against_autograd", "autograd", 1e-9, {"small": 1e-9, "large": 2e-9, "broken": math.nan}),
        Comparison("against_differences", "differences", 1e-6, {"small": 1e-9, "large": 1e-7}),
    ],
)


def test_checks_above_the_tolerance_or_without_a_number_fail():
    assert [(comparison.metric, name) for comparison, name in CHECKS.failed] == [
        ("against_autograd", "large"),
        ("against_autograd", "broken"),
    ]


def test_checks_of_several_methods_are_named_once():
    assert CHECKS.names == ["small", "large", "broken"]


@pytest.mark.parametrize(("errors", "expected"), [([1.0, 2.0], 2.0), ([2.0, math.nan], None), ([math.inf, 0.0], None)])
def test_largest_error_is_none_if_one_is_not_finite(errors, expected):
    assert verification.largest(errors) == expected
