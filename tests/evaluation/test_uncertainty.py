import math
from statistics import fmean, stdev, variance

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cifar2.evaluation.uncertainty import (
    estimate,
    prediction_interval,
    pseudo_values,
    standard_error,
    wilson_interval,
)

# The hand-written network on the test images: its accuracy, and the correlations between two predictions that a latent
# normal variable needs for the variances that were observed.  Those of one seed are pooled over its configurations
# (standard deviation 0.007); those of one image are of three seeds.
ACCURACY, OF_SEED, OF_IMAGE = 0.838, 0.0007, 0.82


def simulated(n_seeds, n_images, n, generator):
    """Correct predictions, n x seeds x images: seeds and images each shift the chance of a correct one."""
    shape = (n, n_seeds, n_images)
    seeds, images, rest = (
        torch.randn(*size, generator=generator) * math.sqrt(part)
        for size, part in (
            ((n, n_seeds, 1), OF_SEED),
            ((n, 1, n_images), OF_IMAGE),
            (shape, 1 - OF_SEED - OF_IMAGE),
        )
    )
    return seeds + images + rest < stats.norm.ppf(ACCURACY)


@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_intervals_of_simulated_seeds_hold_in_95_percent(n_seeds):
    generator = torch.Generator().manual_seed(0)
    intervals = [
        estimate(correct).interval() for _ in range(30) for correct in simulated(n_seeds, 1000, 100, generator)
    ]
    held = [low <= ACCURACY <= high for low, high in intervals]
    assert fmean(held) == pytest.approx(0.95, abs=0.01)


def test_standard_error_is_the_spread_of_simulated_means():
    """Also where a seed and an image together have an effect of their own, which counts once."""
    generator = torch.Generator().manual_seed(0)
    means, predicted = [], []
    for _ in range(4000):
        seeds = 0.1 * torch.randn(3, 1, generator=generator)
        images = 0.3 * torch.randn(1, 20, generator=generator)
        values = seeds + images + 0.5 * torch.randn(3, 20, generator=generator)
        means.append(values.mean())
        predicted.append(standard_error(values) ** 2)
    assert math.sqrt(fmean(predicted)) == pytest.approx(torch.stack(means).std().item(), rel=0.05)


VALUES = st.tuples(st.integers(2, 5), st.integers(2, 8)).flatmap(
    lambda shape: st.lists(
        st.lists(st.floats(-1e3, 1e3), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    )
)


@given(VALUES)
def test_estimate_is_that_of_a_two_way_analysis_of_variance(values):
    n_seeds, n = len(values), len(values[0])
    rows, columns = [fmean(row) for row in values], [fmean(column) for column in zip(*values, strict=True)]
    mean = fmean(rows)
    squares = [(values[s][i] - rows[s] - columns[i] + mean) ** 2 for s in range(n_seeds) for i in range(n)]
    rest = sum(squares) / ((n_seeds - 1) * (n - 1))
    of_seeds, of_images = max(n * variance(rows), rest), max(n_seeds * variance(columns), rest)
    found = estimate(torch.tensor(values, dtype=torch.float64))
    assert found.mean == pytest.approx(mean, abs=1e-9)
    assert found.standard_error**2 * n_seeds * n == pytest.approx(of_seeds + of_images - rest, rel=1e-6, abs=1e-9)
    if min(of_seeds, of_images) > 1e-6:
        spread = of_seeds**2 / (n_seeds - 1) + of_images**2 / (n - 1) + rest**2 / ((n_seeds - 1) * (n - 1))
        assert found.degrees_of_freedom == pytest.approx((of_seeds + of_images - rest) ** 2 / spread, rel=1e-6)


def test_interval_of_one_seed_is_the_t_interval_of_its_images():
    values = [0.2, 0.5, 0.9, 0.4]
    expected = stats.t.interval(0.95, 3, loc=fmean(values), scale=stdev(values) / 2)
    assert estimate(torch.tensor([values], dtype=torch.float64)).interval() == pytest.approx(expected)


def test_equal_values_have_no_uncertainty():
    assert estimate(torch.ones(3, 5)).interval() == [1, 1]


def test_intervals_of_several_comparisons_are_wider():
    found = estimate(torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]]))
    (low, high), (lower, higher) = found.interval(), found.interval(comparisons=10)
    assert lower < low < high < higher
    assert higher - found.mean == pytest.approx(stats.t.ppf(1 - 0.05 / 20, 4) * found.standard_error)


def test_prediction_intervals_hold_one_new_run_in_95_percent():
    runs = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)).tolist()
    held = [low <= run <= high for *others, run in runs for low, high in [prediction_interval(others)]]
    assert fmean(held) == pytest.approx(0.95, abs=0.01)


def test_pseudo_values_of_a_mean_are_the_values():
    values = torch.tensor([1.0, 4.0, 7.0, 0.0], dtype=torch.float64)
    without = (values.sum() - values) / 3
    assert pseudo_values(values.mean().item(), without).tolist() == pytest.approx(values.tolist())


def wilson(k, n, z=1.959963984540054):
    """The formula of Wilson, 1927, with the 97.5 % point of the normal distribution."""
    p = k / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]


@given(st.integers(1, 100_000), st.floats(0, 1))
def test_accuracy_interval_is_wilsons(n, accuracy):
    k = round(accuracy * n)
    low, high = interval = wilson_interval(k, n)
    assert interval == pytest.approx(wilson(k, n), abs=1e-12)
    assert 0 <= low <= k / n <= high <= 1
    assert low < high
