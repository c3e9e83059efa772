import pytest
import torch

from cifar2.networks import classifier, inference
from cifar2.networks.image_classifier import ImageClassifier, features
from tests.conftest import random_split
from tests.networks.test_classifier import CARDS

IMAGES = random_split(3, 0).x


@pytest.mark.parametrize("kind", CARDS)
@pytest.mark.parametrize("flip_average", [False, True])
def test_images_become_the_logits_of_inference(kind, flip_average):
    card = CARDS[kind]
    card = card.model_copy(
        update={"configuration": card.configuration.model_copy(update={"flip_average": flip_average})}
    )
    network = classifier.build(card, 0).eval()
    expected = inference.logits(network, inference.inputs(card, IMAGES), flip_average)
    with torch.no_grad():
        torch.testing.assert_close(ImageClassifier(card, network).eval()(IMAGES), expected)


@pytest.mark.parametrize("kind", CARDS)
def test_features_are_what_the_last_layer_gets(kind):
    card = CARDS[kind]
    network = classifier.build(card, 0).eval()
    x = inference.inputs(card, IMAGES)
    *_, last = (module for module in network.modules() if isinstance(module, torch.nn.Linear))
    with torch.no_grad():
        torch.testing.assert_close(last(features(network, x)), network(x))
