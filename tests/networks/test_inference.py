import pytest
import torch

from cifar2.dataset.examples import normalise
from cifar2.networks import inference, transfer
from cifar2.networks.cnn import Cnn
from cifar2.params import Features
from tests.conftest import random_split
from tests.networks.test_classifier import CARD

IMAGES = random_split(3, 0).x


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Cnn((4, 8), n_classes=2).eval()


def test_inputs_are_images_normalised_as_the_card_says():
    card = CARD.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)})
    assert torch.equal(inference.inputs(card, IMAGES), normalise(IMAGES, card.mean, card.std))


def test_inputs_are_features_extracted_as_the_card_says():
    extractor = Features(backbone="efficientnet_lite0", image_size=32, flip_average=True)
    features = inference.inputs(CARD.model_copy(update={"features": extractor}), IMAGES)
    assert torch.equal(features, transfer.extract_features(IMAGES, "efficientnet_lite0", 32, flip_average=True))


def test_logits_of_several_batches_match_those_of_one(model):
    x = torch.randn(2 * inference.BATCH + 4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(inference.logits(model, x), model(x))
    assert not inference.logits(model, x).requires_grad


def test_flip_average_is_the_mean_over_mirror_images(model):
    x = torch.randn(5, 3, 32, 32)
    mirrored = torch.stack([torch.stack([channel.fliplr() for channel in image]) for image in x])
    expected = (inference.logits(model, x) + inference.logits(model, mirrored)) / 2
    assert not torch.equal(expected, inference.logits(model, x))
    torch.testing.assert_close(inference.logits(model, x, flip_average=True), expected)


@pytest.mark.parametrize("flip_average", [False, True])
def test_probabilities_are_the_softmax_of_logits_in_float64(model, flip_average):
    x = torch.randn(5, 3, 32, 32)
    p = inference.probabilities(model, x, flip_average)
    assert torch.equal(p, torch.softmax(inference.logits(model, x, flip_average).double(), 1))
    torch.testing.assert_close(p.sum(1), torch.ones(5, dtype=torch.float64))
