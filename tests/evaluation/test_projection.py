import pytest
import torch

from cifar2.evaluation import projection
from cifar2.evaluation.projection import project


def blobs(n_features=20, n=60):
    """Two groups of examples that lie apart along the diagonal of all features."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, n_features, generator=generator)
    return noise + 8 * (torch.arange(n) % 2).view(-1, 1)


def test_first_component_tells_groups_apart():
    positions, (first, second) = project(blobs())
    even, odd = positions[::2, 0], positions[1::2, 0]
    assert even.max() < odd.min() or odd.max() < even.min()
    assert first > 0.9 > second


@pytest.mark.parametrize(("n_features", "n"), [(2, 5), (20, 60), (700, 30)])
def test_components_are_those_of_the_singular_value_decomposition(n_features, n):
    features = blobs(n_features, n)
    positions, variance = project(features)
    centred = features.double() - features.double().mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    expected = u[:, :2] * s[:2] / (u[:, 0] * s[0]).std()
    torch.testing.assert_close(positions.abs().double(), expected.abs(), atol=1e-3, rtol=0)
    assert variance == pytest.approx((s**2 / (s**2).sum())[:2].tolist(), abs=1e-3)


def test_rounding_errors_in_the_features_move_no_point(monkeypatch):
    features = blobs().double()
    errors = 1e-6 * torch.randn(features.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    positions, variance = project(features)
    moved, moved_variance = project(features + errors)
    assert torch.equal(positions, moved)
    assert variance == moved_variance
    monkeypatch.setattr(projection, "DECIMALS", 15)
    assert not torch.equal(project(features)[0], project(features + errors)[0])


def test_one_feature_is_the_first_component():
    positions, variance = project(torch.tensor([[1.0], [3.0], [2.0]]))
    assert positions[:, 0].abs().tolist() == [1, 1, 0]
    assert positions[:, 1].tolist() == [0, 0, 0]
    assert variance == [1, 0]


def test_equal_features_lie_at_one_point():
    positions, variance = project(torch.ones(4, 3))
    assert torch.equal(positions, torch.zeros(4, 2))
    assert variance == [0, 0]
