import io
import itertools
import re

import pytest
from matplotlib.text import Text

from cifar2.dataset import cifar10
from cifar2.dataset.examples import normalise
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
