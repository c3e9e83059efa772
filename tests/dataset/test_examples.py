import torch
from torchvision.transforms.v2.functional import normalize, to_dtype

from cifar2.dataset.examples import examples, normalise
from cifar2.params import Features
from tests.conftest import random_features, random_split

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]


def test_normalising_matches_torchvision():
    images = random_split(4, 0).x
    expected = normalize(to_dtype(images, torch.float32, scale=True), MEAN, STD)
    torch.testing.assert_close(normalise(images, MEAN, STD), expected)
    assert images.dtype == torch.uint8


def test_examples_of_images_are_normalised():
    split = random_split(4, 0)
    assert torch.equal(examples(split, MEAN, STD).x, normalise(split.x, MEAN, STD))
    assert torch.equal(examples(split, MEAN, STD).y, split.labels)
    assert examples(split, MEAN, STD)[2:] == (MEAN, STD)


def test_examples_of_features_stay_as_they_are():
    extractor = Features(backbone="resnet18", image_size=64, flip_average=True)
    split = random_features(random_split(4, 0), extractor, 0)
    assert torch.equal(examples(split, MEAN, STD).x, split.x)
