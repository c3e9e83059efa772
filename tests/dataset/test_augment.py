import pytest
import torch
from torchvision.transforms.v2 import functional

from cifar2.dataset import augment, splits
from tests.conftest import random_split

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
IMAGES = random_split(40, 0).images
X = splits.normalise(IMAGES, MEAN, STD)


def changed(**changes):
    torch.manual_seed(3)
    return augment.augment(X, **({"flip": False, "shift": 0, "jitter": 0.0} | changes), mean=MEAN, std=STD)


def test_with_everything_off_the_pictures_stay_and_nothing_is_drawn():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert augment.augment(X, False, 0, 0.0, MEAN, STD) is X
    assert torch.equal(torch.get_rng_state(), before)


def test_about_half_are_flipped_and_each_as_torchvision_does_it():
    flipped = changed(flip=True)
    mirror = functional.horizontal_flip(X)
    is_flipped = (flipped == mirror).flatten(1).all(1)
    assert 10 < is_flipped.sum() < 30
    assert torch.equal(flipped[~is_flipped], X[~is_flipped])


def test_each_shift_is_a_crop_of_the_reflected_picture_as_torchvision_cuts_it():
    shifted = changed(shift=3)
    padded = functional.pad(X, [3], padding_mode="reflect")
    crops = {(i, j): functional.crop(padded, i, j, 32, 32) for i in range(7) for j in range(7)}
    drawn = [next(place for place, crop in crops.items() if torch.equal(crop[n], shifted[n])) for n in range(len(X))]
    assert {i for i, _ in drawn} == {j for _, j in drawn} == set(range(7))
    assert len(set(drawn)) > 20


def test_colours_change_as_torchvision_changes_them():
    factors = 1 + 0.5 * (2 * torch.rand(3, len(X), generator=torch.Generator().manual_seed(3)) - 1)
    found = changed(jitter=0.5)
    for n, image in enumerate(IMAGES):
        wanted = image / 255
        for adjust, factor in zip(
            (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation),
            factors[:, n].tolist(),
            strict=True,
        ):
            wanted = adjust(wanted, factor)
        torch.testing.assert_close(found[n : n + 1], functional.normalize(wanted, MEAN, STD).unsqueeze(0))


def test_every_picture_has_its_own_change():
    x = X[:1].expand(40, -1, -1, -1)
    torch.manual_seed(0)
    assert len(augment.augment(x, False, 0, 0.4, MEAN, STD).flatten(1).unique(dim=0)) == 40


@pytest.mark.parametrize("changes", [{"flip": True}, {"shift": 2}, {"jitter": 0.2}])
def test_the_same_random_state_gives_the_same_pictures(changes):
    assert torch.equal(changed(**changes), changed(**changes))
