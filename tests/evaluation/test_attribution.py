import functools

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from cifar2.evaluation.attribution import occlusion
from cifar2.networks import classifier, inference
from cifar2.networks.image_classifier import ImageClassifier
from tests.conftest import random_split
from tests.networks.test_classifier import CARDS

IMAGES, LABELS = (random_split(6, 0).x, random_split(6, 0).labels)
# The pixels that tell the classes of the images below apart.
PLACE = (slice(8, 16), slice(20, 28))
ELSEWHERE = torch.ones(32, 32, dtype=torch.bool)
ELSEWHERE[PLACE] = False


class Corner(nn.Module):
    """A classifier whose log-odds are the mean of the upper left eight by eight pixels."""

    def forward(self, images):
        brightness = images[..., :8, :8].float().mean((1, 2, 3)) / 10
        return torch.stack([torch.zeros_like(brightness), brightness], 1)


def images_with_a_square(n):
    """Noise, with a square that is red or blue by class."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
    y = torch.arange(n) % 2
    for label, colour in enumerate([(200, 60, 60), (60, 60, 200)]):
        x[y == label, :, *PLACE] = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1)
    return x, y


@functools.cache
def maps(seed, trained):
    """The maps of a MyNet for the true classes of twelve images with a square."""
    card = CARDS["mlp"].model_copy(update={"n_l": (3072, 16, 2), "activation": "tanh"})
    network = classifier.build(card, seed)
    images, labels = images_with_a_square(200)
    x = inference.inputs(card, images)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(30 if trained else 0):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), labels).backward()
        optimizer.step()
    model = ImageClassifier(card, network).eval()
    x, y = images[:12], labels[:12]
    with torch.no_grad():
        assert not trained or torch.equal(model(x).argmax(1), y)
    return occlusion(model, x, y)


def similarity(first, second):
    """The absolute rank correlation of two maps, mean over the images."""
    pairs = zip(first, second, strict=True)
    return sum(abs(spearmanr(a.flatten(), b.flatten()).statistic) for a, b in pairs) / len(first)


def test_map_lies_where_the_classifier_looks():
    images = torch.full((1, 3, 32, 32), 50, dtype=torch.uint8)
    images[..., :8, :8] = 250
    (map_,) = occlusion(Corner(), images, torch.tensor([1]))
    assert map_.argmax() == 0
    assert (map_[:8, :8] > 0).all()
    # A window is eight pixels wide, so none that reaches the corner contains a pixel beyond the fifteenth.
    assert (map_[16:] == 0).all()
    assert (map_[:, 16:] == 0).all()


def test_value_is_the_fall_of_the_log_odds():
    images = torch.full((1, 3, 32, 32), 50, dtype=torch.uint8)
    images[..., :8, :8] = 250
    mean = images.float().mean().round()
    falls = [occlusion(Corner(), images, torch.tensor([label]))[0, 0, 0].item() for label in (1, 0)]
    # Only one window contains the first pixel; it hides the corner.
    expected = ((250 - mean) / 10).item()
    assert falls == pytest.approx([expected, -expected], rel=1e-5)


def test_term_that_all_logits_share_changes_nothing():
    class Shifted(Corner):
        def forward(self, images):
            return super().forward(images) + images.float().mean((1, 2, 3)).view(-1, 1)

    torch.testing.assert_close(
        occlusion(Shifted(), IMAGES, LABELS), occlusion(Corner(), IMAGES, LABELS), rtol=0, atol=1e-4
    )


def test_log_odds_are_against_all_other_classes():
    class Three(Corner):
        def forward(self, images):
            logits = super().forward(images)
            return torch.cat([logits, logits.mean(1, keepdim=True)], 1)

    def log_odds(images):
        return torch.logit(torch.softmax(Three()(images).double(), 1)[0, 2]).item()

    image = IMAGES[:1] // 8
    hidden = image.clone()
    hidden[..., :8, :8] = image.float().mean((2, 3), keepdim=True).round().to(torch.uint8)
    found = occlusion(Three(), image, torch.tensor([2]))[0, 0, 0].item()
    assert found == pytest.approx(log_odds(image) - log_odds(hidden), rel=1e-3)


@pytest.mark.parametrize("size", [4, 7, 32, 45])
def test_map_has_the_size_of_the_image(size):
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    found = occlusion(Corner(), images, torch.tensor([0, 1]))
    assert (found.shape, found.dtype) == ((2, size, size), torch.float32)
    assert found.isfinite().all()


@pytest.mark.parametrize("kind", CARDS)
def test_every_family_has_maps(kind):
    card = CARDS[kind]
    model = ImageClassifier(card, classifier.build(card, 0)).eval()
    found = occlusion(model, IMAGES[:2], LABELS[:2])
    assert (found.flatten(1).std(1) > 0).all()
    assert not found.requires_grad


def test_map_does_not_depend_on_the_number_of_threads():
    class Summed(nn.Module):
        def forward(self, images):
            sums = torch.stack([image.sum() for image in images.float().div(255).sqrt()])  # in parallel
            return torch.stack([sums, torch.zeros_like(sums)], 1)

    images = torch.randint(0, 256, (1, 3, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 4):
            torch.set_num_threads(n)
            found.append(occlusion(Summed(), images, torch.tensor([0])))
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_map_does_not_depend_on_other_images():
    card = CARDS["cnn"]
    model = ImageClassifier(card, classifier.build(card, 0)).eval()
    assert torch.equal(occlusion(model, IMAGES[2:3], LABELS[2:3]), occlusion(model, IMAGES, LABELS)[2:3])


def test_trained_networks_map_the_place_of_the_class():
    trained = maps(0, trained=True)
    assert (trained[:, *PLACE].mean((1, 2)) > 3 * trained[:, ELSEWHERE].mean(1).abs()).all()


def test_maps_are_those_of_the_weights_not_of_the_image():
    """The sanity check of Adebayo et al. (2018): a method whose maps survive random weights explains no model."""
    trained = maps(0, trained=True)
    assert similarity(trained, maps(1, trained=True)) > 0.5
    assert max(similarity(trained, maps(seed, trained=False)) for seed in (1, 2)) < 0.25
