import pytest

from cifar2.dataset import cifar10
from cifar2.dataset.examples import normalise
from cifar2.figures import prepare
from tests.conftest import random_split
from tests.figures.test_canvas import assert_readable, texts

CLASSES = [*(cifar10.CLASSES[:n] for n in (2, 3, 4, 10)), tuple(f"class number {i}" for i in range(100))]


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


@pytest.mark.parametrize("classes", CLASSES, ids=len)
def test_texts_of_the_class_distribution_do_not_overlap(classes):
    counts = {name: dict.fromkeys(classes, n) for name, n in (("train", 4518), ("val", 502), ("test", 1000))}
    assert_readable(prepare.class_distribution(counts))


def test_samples_of_many_classes_are_those_of_the_first_ten():
    classes = tuple(f"class number {i}" for i in range(100))
    split = random_split(300, 0, classes)
    figure = prepare.samples(split.x, normalise(split.x, [0.5] * 3, [0.5] * 3), split.labels, classes)
    shown = texts(figure)
    assert "class number 9\noriginal" in shown
    assert "class number 10\noriginal" not in shown
