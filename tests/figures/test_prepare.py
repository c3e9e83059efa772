import io
import itertools
import re

import pytest
import torch
from matplotlib.text import Text

from cifar2.dataset import cifar10
from cifar2.dataset.examples import normalise
from cifar2.dataset.near_duplicates import Pairs
from cifar2.figures import prepare
from tests.conftest import random_split
from tests.figures.test_canvas import texts


@pytest.mark.parametrize("classes", [("airplane", "bird"), ("cat", "dog", "frog", "ship")])
def test_samples_show_every_class_before_and_after(classes):
    split = random_split(60, 0, classes)
    x = normalise(split.x, [0.5] * 3, [0.5] * 3)
    shown = texts(prepare.samples(split.x, x, split.labels, classes))
    for name in classes:
        assert f"{name}\noriginal" in shown
        assert f"{name}\nnormalised" in shown


def test_samples_of_a_class_of_few_images_are_drawn():
    split = random_split(3, 0)
    x = normalise(split.x, [0.5] * 3, [0.5] * 3)
    assert "bird" in texts(prepare.samples(split.x, x, split.labels, split.classes))


def test_the_class_distribution_shows_counts_and_fractions():
    counts = {"train": {"airplane": 4518, "bird": 4506}, "test": {"airplane": 1000, "bird": 1000}}
    shown = texts(prepare.class_distribution(counts))
    for text in ("train: 9,024 images", "4,518\n50.1%", "1,000\n50.0%"):
        assert text in shown


@pytest.mark.parametrize("classes", [cifar10.CLASSES[:n] for n in (2, 3, 4, 10)], ids=len)
def test_texts_of_the_class_distribution_do_not_overlap(classes):
    counts = {name: dict.fromkeys(classes, n) for name, n in (("train", 4518), ("val", 502), ("test", 1000))}
    figure = prepare.class_distribution(counts)
    figure.savefig(io.BytesIO())
    # Matplotlib keeps ticks beyond the ends of an axis and does not draw them.
    visible = (text for text in figure.findobj(Text) if text.get_visible())
    shown = [text for text in visible if re.search(r"[a-z]|%", text.get_text())]
    boxes = [text.get_window_extent() for text in shown]
    for (a, one), (b, other) in itertools.combinations(zip(shown, boxes, strict=True), 2):
        assert not one.overlaps(other), (a.get_text(), b.get_text())
    edge = figure.bbox
    assert all(edge.x0 <= box.x0 and box.x1 <= edge.x1 for box in boxes)


def pairs_of(n):
    test, train = torch.arange(n), torch.arange(n).flip(0)
    return Pairs(test, train, torch.zeros(n, dtype=torch.bool), torch.linspace(1, 0.8, n))


@pytest.mark.parametrize("n", [0, 1, 11])
def test_near_duplicates_are_drawn_side_by_side_with_classes(n):
    test, train = random_split(1200, 0), random_split(11, 1)
    figure = prepare.near_duplicates(train, test, pairs_of(n))
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == n
    for i, axes in enumerate(shown):
        pixels = torch.from_numpy(axes.images[0].get_array().data).permute(2, 0, 1)
        assert torch.equal(pixels[:, :, :32], test.x[i])
        assert torch.equal(pixels[:, :, -32:], train.x[n - 1 - i])
        assert axes.get_title() == test.classes[test.labels[i]]
    assert f"{n} of 1,200 test images (left) with a near-duplicate in CIFAR-10's training set" in texts(figure)


def test_the_least_similar_of_many_near_duplicates_are_drawn(monkeypatch):
    monkeypatch.setattr(prepare, "N_PAIRS", 3)
    test = random_split(8, 0)
    figure = prepare.near_duplicates(random_split(8, 1), test, pairs_of(5))
    shown = [torch.from_numpy(axes.images[0].get_array().data) for axes in figure.axes if axes.images]
    assert len(shown) == 3
    assert all(torch.equal(pixels.permute(2, 0, 1)[:, :, :32], test.x[i]) for i, pixels in enumerate(shown, 2))
    title = "5 of 8 test images (left) with a near-duplicate in CIFAR-10's training set; the 3 least similar"
    assert title in texts(figure)
