import pytest
import torch

from cifar2.figures import report
from tests.figures.test_canvas import texts


@pytest.mark.parametrize("n", [0, 1, 13])
def test_units_are_scaled_to_their_own_range_around_grey(n):
    weights = torch.randn(13, 3, 32, 32, generator=torch.Generator().manual_seed(0))[:n]
    figure = report.first_layer(weights, "title")
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == n
    for unit, axes in zip(weights, shown, strict=True):
        pixels = torch.from_numpy(axes.images[0].get_array().data).permute(2, 0, 1)
        assert (pixels - 0.5).abs().max().item() == pytest.approx(0.5)
        assert torch.allclose(pixels - 0.5, 0.5 * unit / unit.abs().max(), atol=1e-6)
    assert "title" in texts(figure)
