import pytest
import torch

from cifar2.figures import evaluate
from tests.conftest import random_split
from tests.figures.test_canvas import assert_readable, texts


def test_the_confusion_matrix_shows_counts_and_fractions():
    shown = texts(evaluate.confusion([[862, 138], [175, 825]], ("airplane", "bird"), "2,000 test images"))
    for text in ("862\n86.2%", "175\n17.5%", "2,000 test images", "predicted", "true"):
        assert text in shown


@pytest.mark.parametrize("n", [2, 4, 5, 10, 20, 21, 100])
def test_texts_of_a_confusion_matrix_do_not_overlap(n):
    matrix = [[1000 if i == j else 100 for j in range(n)] for i in range(n)]
    assert_readable(evaluate.confusion(matrix, [f"class number {i}" for i in range(n)], "title"))


@pytest.mark.parametrize("n", [0, 1, 7])
def test_the_gallery_shows_each_image_under_its_prediction(n):
    confidence = 0.51 + torch.arange(n).double() / 20
    probabilities = torch.stack([1 - confidence, confidence], 1)
    images, labels = random_split(8, 0).x[:n], torch.zeros(n, dtype=torch.int64)
    figure = evaluate.misclassified(images, labels, probabilities, ("airplane", "bird"), "title")
    assert sum(bool(axes.images) for axes in figure.axes) == n
    for c in confidence.tolist():
        assert f"airplane, predicted\nbird ({c:.2%})" in texts(figure)


def test_images_are_drawn_with_channels_last():
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[0, 0] = 200
    figure = evaluate.misclassified(image, torch.tensor([0]), torch.tensor([[0.4, 0.6]]), ("a", "b"), "title")
    (axes,) = [a for a in figure.axes if a.images]
    assert axes.images[0].get_array()[5, 5].tolist() == [200, 0, 0]
