import pytest
import torch

from cifar2.figures import verify
from cifar2.gradcheck import Case, Errors
from tests.figures.test_canvas import assert_readable, texts


def test_gradient_errors_show_each_group_and_both_tolerances():
    case = Case((5, 3), "relu", "identity", "cross_entropy", 4)
    figure = verify.gradient_errors([(case, Errors(0.0, 1e-9))], Errors(1e-12, 1e-7))
    shown = texts(figure)
    for text in ("relu, cross entropy", "tolerance, autograd", "tolerance, central difference"):
        assert text in shown
    points = [c.get_offsets()[0][0] for c in figure.axes[0].collections]
    assert points == [1e-17, 1e-9]


def test_untrained_network_is_drawn_layer_by_layer():
    image = torch.full((3, 32, 32), 200, dtype=torch.uint8)
    activations = {1: torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0]), 2: torch.tensor([1.0, 0.0])}
    figure = verify.untrained(image, activations, {"airplane": 0.4, "bird": 0.6}, "bird")
    shown = texts(figure)
    for text in ("bird", "layer 1: 5 units\n60% are 0", "layer 2: 2 units\n50% are 0", "0.400", "0.600"):
        assert text in shown
    drawn = figure.axes[1].images[0].get_array().compressed()
    assert drawn.tolist() == [0, 1, 0, 2, 0]


@pytest.mark.parametrize("n", [2, 3, 4, 10, 100])
def test_texts_of_an_untrained_network_do_not_overlap(n):
    image = torch.full((3, 32, 32), 200, dtype=torch.uint8)
    probabilities = {f"class number {i}": 1 / n for i in range(n)}
    assert_readable(verify.untrained(image, {1: torch.zeros(5)}, probabilities, "class number 0"))
