import pytest
import torch

from cifar2.errors import UserError
from cifar2.evaluation import summary
from cifar2.evaluation.summary import Results, summarise
from cifar2.evaluation.uncertainty import standard_error

RESULTS = Results(
    correct=torch.tensor([[True, True, False, True], [True, False, False, True]]),
    losses=torch.tensor([[0.1, 0.2, 1.5, 0.3], [0.2, 0.9, 1.1, 0.1]]),
    loss_std=torch.tensor([0.01, 0.03], dtype=torch.float64),
    train_accuracy=torch.tensor([0.9, 1.0], dtype=torch.float64),
)


def test_summary_is_over_seeds_and_images():
    found = summarise(RESULTS, [12, 9])
    assert found.val_accuracy == pytest.approx(5 / 8)
    assert found.val_loss == pytest.approx(4.4 / 8)
    assert found.val_accuracy_se == standard_error(RESULTS.correct)
    assert found.val_loss_se == standard_error(RESULTS.losses)
    assert found.val_loss_std == [0.01, 0.03]
    assert found.train_accuracy == pytest.approx(0.95)
    assert found.gap == found.train_accuracy - found.val_accuracy
    assert found.kept_epoch == [12, 9]


def test_gap_varies_with_the_validation_images():
    """Seed by seed: a seed with a high training accuracy may have a high validation accuracy too."""
    gaps = torch.tensor([[-0.1, -0.1, 0.9, -0.1], [0.0, 1.0, 1.0, 0.0]])
    assert summary.gap_error(RESULTS) == pytest.approx(standard_error(gaps))


def test_sample_repeats_seeds_and_images():
    sample = RESULTS.sample(torch.tensor([1, 1, 0]), torch.tensor([3, 0]))
    assert sample.correct.tolist() == [[True, True]] * 3
    assert torch.equal(sample.losses, RESULTS.losses[[1, 1, 0]][:, [3, 0]])
    assert sample.loss_std.tolist() == [0.03, 0.03, 0.01]
    assert sample.train_accuracy.tolist() == [1.0, 1.0, 0.9]


@pytest.mark.parametrize("results", [RESULTS, summary.nothing()])
def test_file_keeps_the_results(tmp_path, results):
    summary.save(tmp_path / "x.safetensors", results)
    assert all(map(torch.equal, summary.load(tmp_path / "x.safetensors"), results))


def test_file_of_something_else_is_corrupted(tmp_path):
    summary.files.write_tensors(tmp_path / "x.safetensors", {"correct": RESULTS.correct}, {})
    with pytest.raises(UserError, match="is corrupted"):
        summary.load(tmp_path / "x.safetensors")
