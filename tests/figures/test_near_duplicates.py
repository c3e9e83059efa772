import pytest
import torch

from cifar2.dataset.near_duplicates import Pairs
from cifar2.figures import near_duplicates
from tests.conftest import random_split
from tests.figures.test_canvas import texts


def pairs_of(n):
    test, train = torch.arange(n), torch.arange(n).flip(0)
    return Pairs(test, train, torch.zeros(n, dtype=torch.bool), torch.linspace(1, 0.8, n))


@pytest.mark.parametrize("n", [0, 1, 11])
def test_near_duplicates_are_drawn_side_by_side_with_classes(n):
    test, train = random_split(1200, 0), random_split(11, 1)
    figure = near_duplicates.gallery(train, test, pairs_of(n))
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == n
    for i, axes in enumerate(shown):
        pixels = torch.from_numpy(axes.images[0].get_array().data).permute(2, 0, 1)
        assert torch.equal(pixels[:, :, :32], test.x[i])
        assert torch.equal(pixels[:, :, -32:], train.x[n - 1 - i])
        assert axes.get_title() == test.classes[test.labels[i]]
    assert f"{n} of 1,200 test images (left) with a near-duplicate in the training or validation set" in texts(figure)


def test_the_least_similar_of_many_near_duplicates_are_drawn(monkeypatch):
    monkeypatch.setattr(near_duplicates, "N_PAIRS", 3)
    test = random_split(8, 0)
    figure = near_duplicates.gallery(random_split(8, 1), test, pairs_of(5))
    shown = [torch.from_numpy(axes.images[0].get_array().data) for axes in figure.axes if axes.images]
    assert len(shown) == 3
    assert all(torch.equal(pixels.permute(2, 0, 1)[:, :, :32], test.x[i]) for i, pixels in enumerate(shown, 2))
    title = "5 of 8 test images (left) with a near-duplicate in the training or validation set; the 3 least similar"
    assert title in texts(figure)


def test_without_a_search_the_figure_says_so():
    figure = near_duplicates.gallery(random_split(8, 1), random_split(8, 0), None)
    assert not any(axes.images for axes in figure.axes)
    assert "data.near_duplicates is false: no search for near-duplicates" in texts(figure)
