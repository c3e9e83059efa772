from pathlib import Path

import pytest
import torch

from cifar2.evaluation import summary
from tests.conftest import table

TABLE = Path("extended/metrics/replication.csv")


def replicate(name, *n_correct):
    """Results of 100 images, of which the runs classify so many correctly."""
    correct = torch.stack([torch.arange(100) < n for n in n_correct])
    zeros = torch.zeros(len(n_correct), dtype=torch.float64)
    path = Path(f"extended/data/replicated/{name}.safetensors")
    summary.save(path, summary.Results(correct, torch.ones(correct.shape), zeros, zeros + 1))


def test_spread_over_seeds_and_frequency_are_reported(project, run_stage):
    replicate("fine", 80, 85, 90)
    replicate("smooth", 50, 50, 50)
    run_stage("compare_seeds.py")
    fine, smooth = table(TABLE)
    assert (fine["name"], fine["n_seeds"]) == ("fine", "3")
    assert float(fine["val_accuracy"]) == pytest.approx(0.85)
    assert float(fine["val_accuracy_std"]) == pytest.approx(0.05)
    low, high = float(fine["one_new_run_low"]), float(fine["one_new_run_high"])
    assert (low + high) / 2 == pytest.approx(0.85)
    assert high - low > 0.2
    assert (float(fine["fraction"]), float(smooth["fraction"])) == (1, 0)
    assert float(smooth["val_accuracy_std"]) == 0


def test_missing_results_are_one_line(project, fails_with):
    assert "extended/data/replicated/fine.safetensors is missing" in fails_with("compare_seeds.py")
