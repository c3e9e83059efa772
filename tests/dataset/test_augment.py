import torch
from torchvision.transforms.v2 import functional

from cifar2.dataset import augment
from cifar2.dataset.examples import normalise
from tests.conftest import random_split

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
IMAGES = random_split(40, 0).x
X = normalise(IMAGES, MEAN, STD)


def changed(**changes):
    torch.manual_seed(3)
    return augment.augment(X, **({"flip": False, "shift": 0, "jitter": 0.0} | changes), mean=MEAN, std=STD)


def test_images_stay_without_augmentation_and_nothing_is_drawn():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert augment.augment(X, False, 0, 0.0, MEAN, STD) is X
    assert torch.equal(torch.get_rng_state(), before)


def test_flips_mirror_half_of_the_images_as_torchvision_does():
    flipped = changed(flip=True)
    mirror = functional.horizontal_flip(X)
    is_flipped = (flipped == mirror).flatten(1).all(1)
    assert 10 < is_flipped.sum() < 30
    assert torch.equal(flipped[~is_flipped], X[~is_flipped])


def test_shifts_are_torchvisions_crops_of_reflected_images():
    shifted = changed(shift=3)
    padded = functional.pad(X, [3], padding_mode="reflect")
    crops = {(i, j): functional.crop(padded, i, j, 32, 32) for i in range(7) for j in range(7)}
    drawn = [next(ij for ij, crop in crops.items() if torch.equal(crop[n], shifted[n])) for n in range(len(X))]
    assert {i for i, _ in drawn} == {j for _, j in drawn} == set(range(7))
    assert len(set(drawn)) > 20


def test_jitter_changes_colours_as_torchvision_does():
    factors = 1 + 0.5 * (2 * torch.rand(3, len(X), generator=torch.Generator().manual_seed(3)) - 1)
    jittered = changed(jitter=0.5)
    for n, image in enumerate(IMAGES):
        expected = image / 255
        for adjust, factor in zip(
            (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation),
            factors[:, n].tolist(),
            strict=True,
        ):
            expected = adjust(expected, factor)
        torch.testing.assert_close(jittered[n : n + 1], functional.normalize(expected, MEAN, STD).unsqueeze(0))
