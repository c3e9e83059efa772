import pytest
import torch

from cifar2.networks import classifier, inference
from cifar2.networks.image_classifier import ImageClassifier, outputs
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
def test_features_are_the_inputs_of_the_last_layer(kind):
    card = CARDS[kind]
    network = classifier.build(card, 0).eval()
    logits, features = outputs(ImageClassifier(card, network).eval(), IMAGES)
    *_, last = (module for module in network.modules() if isinstance(module, torch.nn.Linear))
    assert features.shape == (3, last.in_features)
    assert features.std(0).max() > 0
    torch.testing.assert_close(last(features), logits)  # linear, so also for the mean over mirror images
