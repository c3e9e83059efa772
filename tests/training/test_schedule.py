import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar2.training.schedule import RISE, START, learning_rates


def torchs(scheduler, steps):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.4)
    schedule = scheduler(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_constant_rate_is_the_number_itself():
    assert learning_rates("constant", 0.1, 3) == [0.1, 0.1, 0.1]


@pytest.mark.parametrize("steps", [1, 2, 37, 100])
def test_cosine_matches_torch(steps):
    expected = torchs(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, steps), steps)
    assert learning_rates("cosine", 0.4, steps) == pytest.approx(expected)


@pytest.mark.parametrize("steps", [10, 100])
def test_one_cycle_matches_torch_but_for_one_step(steps):
    """PyTorch ends its rise, and its fall, one step earlier."""
    expected = torchs(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.4, total_steps=steps + 1), steps)
    rates = learning_rates("one_cycle", 0.4, steps)
    assert rates == pytest.approx(expected, abs=0.4 * 4 / steps)
    assert max(rates) == pytest.approx(0.4)
    assert rates[0] == pytest.approx(0.4 / 25)
    assert rates[-1] < 0.4 * 0.05 or steps < 20


LR, STEPS = st.floats(1e-6, 1e3), st.integers(1, 2000)


@given(st.sampled_from(["constant", "cosine", "one_cycle"]), LR, STEPS)
def test_rates_of_each_step_are_above_0_and_up_to_lr(schedule, lr, steps):
    rates = learning_rates(schedule, lr, steps)
    assert len(rates) == steps
    assert all(0 < rate <= lr * (1 + 1e-12) for rate in rates)


@given(LR, STEPS)
def test_one_cycle_rises_for_a_fraction_of_steps_then_falls(lr, steps):
    rates = learning_rates("one_cycle", lr, steps)
    top = math.ceil(RISE * steps)
    assert rates[0] == pytest.approx(lr / START)
    assert all(a < b for a, b in pairwise(rates[:top]))
    assert all(a > b for a, b in pairwise(rates[top:]))
    assert max(rates[top - 1 : top + 1]) == max(rates)
