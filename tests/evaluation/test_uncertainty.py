import math
from statistics import fmean, variance

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar2.evaluation.uncertainty import standard_error


def test_standard_error_is_the_spread_of_simulated_means():
    """Seeds and images each shift the simulated values."""
    generator = torch.Generator().manual_seed(0)
    means, predicted = [], []
    for _ in range(2000):
        seeds = 0.1 * torch.randn(3, 1, generator=generator)
        images = 0.3 * torch.randn(1, 50, generator=generator)
        values = seeds + images + 0.05 * torch.randn(3, 50, generator=generator)
        means.append(values.mean())
        predicted.append(standard_error(values) ** 2)
    assert math.sqrt(sum(predicted) / len(predicted)) == pytest.approx(torch.stack(means).std().item(), rel=0.05)


@given(
    st.integers(2, 8).flatmap(
        lambda n: st.lists(st.lists(st.floats(-1e3, 1e3), min_size=n, max_size=n), min_size=1, max_size=5)
    )
)
def test_standard_error_of_any_values_matches_the_formula(values):
    of_examples, of_seeds = [fmean(column) for column in zip(*values, strict=True)], [fmean(row) for row in values]
    expected = variance(of_examples) / len(of_examples)
    if len(values) > 1:
        expected += variance(of_seeds) / len(of_seeds)
    assert standard_error(torch.tensor(values, dtype=torch.float64)) == pytest.approx(math.sqrt(expected), abs=1e-12)
