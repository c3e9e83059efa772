import pytest
import torch
from torch.nn.functional import interpolate

from cifar2.dataset import near_duplicates


def drawings(n, seed):
    """Structured random images: coarse and fine blots of colour on a background, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = interpolate(torch.randn(n, 3, 4, 4, generator=generator), (32, 32), mode="bicubic")
    fine = interpolate(torch.randn(n, 3, 8, 8, generator=generator), (32, 32), mode="bicubic")
    return (128 + 40 * coarse + 25 * fine).clamp(0, 255).to(torch.uint8)


def shifted(image):
    return image.roll(1, -1)


def brightened(image):
    return (image.float() * 0.8 + 45).clamp(0, 255).to(torch.uint8)


def mirrored(image):
    return image.flip(-1)


def noisy(image):
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(9))
    return (image.float() + 8 * noise).clamp(0, 255).to(torch.uint8)


TRAIN, TEST = drawings(60, 0), drawings(30, 1)


@pytest.mark.parametrize(
    ("copy", "flipped"),
    [
        (lambda image: image, False),
        (shifted, False),
        (brightened, False),
        (noisy, False),
        (mirrored, True),
        (lambda image: brightened(mirrored(image)), True),
    ],
)
def test_copy_of_a_training_image_is_found(copy, flipped):
    test = TEST.clone()
    test[7] = copy(TRAIN[42])
    pairs = near_duplicates.find(TRAIN, test)
    assert pairs.test.tolist() == [7]
    assert pairs.train.tolist() == [42]
    assert pairs.flipped.tolist() == [flipped]
    assert near_duplicates.MIN_DRAWING <= pairs.similarity.item() <= 1 + 1e-5


def test_different_images_are_no_pairs():
    pairs = near_duplicates.find(TRAIN, TEST)
    assert [len(column) for column in pairs] == [0, 0, 0, 0]
    assert [column.dtype for column in pairs] == [torch.int64, torch.int64, torch.bool, torch.float32]


def test_images_with_the_same_background_are_no_pair():
    """Two objects in front of one sky: the whole images are similar, their drawings are not."""
    sky = torch.linspace(80, 180, 32).view(1, 1, 32, 1).expand(1, 3, 32, 32)
    train, test = (
        (sky + (objects.float() - 128) * 0.2).clamp(0, 255).to(torch.uint8) for objects in (TRAIN[:20], TEST[:20])
    )
    assert (torch.corrcoef(torch.cat([train, test]).flatten(1).float()) > near_duplicates.MIN_IMAGE).all()
    assert len(near_duplicates.find(train, test).test) == 0


def test_drawing_on_another_background_is_no_pair():
    drawing = interpolate(torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)), (32, 32))
    slope = torch.linspace(-60, 60, 32).view(1, 1, 1, 32)

    def on(background):
        return (128 + 25 * drawing + background).clamp(0, 255).to(torch.uint8)

    assert len(near_duplicates.find(on(slope), on(0.9 * slope)).test) == 1
    assert len(near_duplicates.find(on(slope), on(-slope)).test) == 0


@pytest.mark.parametrize("value", [0, 128, 255])
def test_image_of_one_colour_matches_nothing(value):
    flat = torch.full((1, 3, 32, 32), value, dtype=torch.uint8)
    assert len(near_duplicates.find(torch.cat([TRAIN, flat]), flat).test) == 0
    assert len(near_duplicates.find(flat, TEST).test) == 0
    # It hides no pair either.
    pairs = near_duplicates.find(torch.cat([flat, TRAIN]), TRAIN[:3])
    assert pairs.train[pairs.test.argsort()].tolist() == [1, 2, 3]


def test_pairs_are_sorted_by_similarity():
    test = TEST.clone()
    test[3], test[11], test[5] = noisy(TRAIN[8]), TRAIN[20], shifted(TRAIN[31])
    pairs = near_duplicates.find(TRAIN, test)
    assert set(zip(*(column.tolist() for column in pairs[:2]), strict=True)) == {(3, 8), (11, 20), (5, 31)}
    assert pairs.test[0] == 11
    assert pairs.similarity.tolist() == sorted(pairs.similarity.tolist(), reverse=True)


def test_most_similar_partner_is_returned_for_each_copy():
    train = TRAIN.clone()
    train[50] = noisy(TRAIN[10])
    test = torch.stack([*TEST[:3], TRAIN[10], mirrored(train[50]), mirrored(TRAIN[10])])
    pairs = near_duplicates.find(train, test)
    found = sorted(zip(*(column.tolist() for column in pairs[:3]), strict=True))
    assert found == [(3, 10, False), (4, 50, True), (5, 10, True)]
