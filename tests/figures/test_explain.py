import torch

from cifar2.figures import explain
from tests.conftest import random_split
from tests.figures.test_canvas import assert_readable, texts


def test_each_image_stands_beside_its_map():
    images, labels = random_split(6, 0).x, torch.tensor([0, 0, 1, 1, 0, 1])
    probabilities = torch.tensor([[0.125, 0.875]]).double().expand(6, 2)
    figure = explain.occlusion(images, torch.randn(6, 32, 32), labels, probabilities, ("airplane", "bird"))
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(drawn) == 12
    assert (drawn[4].images[0].get_array() == images[2].permute(1, 2, 0).numpy()).all()
    assert drawn[4].get_title() == "bird"
    assert drawn[5].get_title() == "bird (87.5%)"
    assert "airplane" in texts(figure)
    assert_readable(figure)


def test_overlay_is_red_above_zero_and_blue_below():
    image = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    map_ = torch.zeros(4, 4)
    map_[0, 0], map_[3, 3] = 2, -2
    red, _, blue = explain.overlay(image, map_)
    assert red[0, 0] > blue[0, 0]
    assert red[3, 3] < blue[3, 3]
    assert abs(int(red[1, 1]) - int(blue[1, 1])) < 5
    assert torch.equal(explain.overlay(image, 10 * map_), explain.overlay(image, map_)), "each map has its own scale"


def test_a_map_of_zeros_has_no_colour():
    image = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    red, _, blue = explain.overlay(image, torch.zeros(4, 4))
    assert (red.int() - blue.int()).abs().max() < 5
