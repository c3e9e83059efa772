import pytest
import torch
from torch.nn.functional import interpolate

from cifar2.dataset import near_duplicates


def drawings(n, seed):
    """Structured random pictures: coarse and fine blots of colour on a background, as photographs have them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = interpolate(torch.randn(n, 3, 4, 4, generator=generator), (32, 32), mode="bicubic")
    fine = interpolate(torch.randn(n, 3, 8, 8, generator=generator), (32, 32), mode="bicubic")
    return (128 + 40 * coarse + 25 * fine).clamp(0, 255).to(torch.uint8)


def shifted(picture):
    return picture.roll(1, -1)


def brightened(picture):
    return (picture.float() * 0.8 + 45).clamp(0, 255).to(torch.uint8)


def mirrored(picture):
    return picture.flip(-1)


def mirrored_and_darkened(picture):
    return (picture.flip(-1).float() * 0.8).to(torch.uint8)


def noisy(picture):
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(9))
    return (picture.float() + 8 * noise).clamp(0, 255).to(torch.uint8)


TRAIN, TEST = drawings(60, 0), drawings(30, 1)


@pytest.mark.parametrize(
    ("copy", "flipped"),
    [
        (lambda picture: picture, False),
        (shifted, False),
        (brightened, False),
        (noisy, False),
        (mirrored, True),
        (mirrored_and_darkened, True),
    ],
)
def test_a_copy_among_the_test_pictures_is_found_with_its_partner(copy, flipped):
    test = TEST.clone()
    test[7] = copy(TRAIN[42])
    found = near_duplicates.find(TRAIN, test)
    assert found.test.tolist() == [7]
    assert found.train.tolist() == [42]
    assert found.flipped.tolist() == [flipped]
    assert near_duplicates.DRAWING <= found.similarity.item() <= 1 + 1e-5


def test_pictures_of_different_things_are_no_pairs():
    found = near_duplicates.find(TRAIN, TEST)
    assert [len(column) for column in found] == [0, 0, 0, 0]
    assert [column.dtype for column in found] == [torch.int64, torch.int64, torch.bool, torch.float32]


def test_the_same_background_does_not_make_a_pair():
    """Two things before one sky: the whole pictures agree, their drawings do not."""
    sky = torch.linspace(80, 180, 32).view(1, 1, 32, 1).expand(1, 3, 32, 32)
    train, test = (
        (sky + (things.float() - 128) * 0.2).clamp(0, 255).to(torch.uint8) for things in (TRAIN[:20], TEST[:20])
    )
    assert (torch.corrcoef(torch.cat([train, test]).flatten(1).float()) > near_duplicates.WHOLE).all()
    assert len(near_duplicates.find(train, test).test) == 0


def test_the_same_drawing_on_another_background_does_not_make_a_pair():
    drawing = interpolate(torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)), (32, 32))
    slope = torch.linspace(-60, 60, 32).view(1, 1, 1, 32)

    def on(background):
        return (128 + 25 * drawing + background).clamp(0, 255).to(torch.uint8)

    assert len(near_duplicates.find(on(slope), on(0.9 * slope)).test) == 1
    assert len(near_duplicates.find(on(slope), on(-slope)).test) == 0


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_of_one_colour_matches_nothing(value):
    flat = torch.full((1, 3, 32, 32), value, dtype=torch.uint8)
    assert len(near_duplicates.find(torch.cat([TRAIN, flat]), flat).test) == 0
    assert len(near_duplicates.find(flat, TEST).test) == 0
    # Nor does it hide a pair.
    found = near_duplicates.find(torch.cat([flat, TRAIN]), TRAIN[:3])
    assert found.train[found.test.argsort()].tolist() == [1, 2, 3]


def test_the_surest_pairs_come_first():
    test = TEST.clone()
    test[3], test[11], test[5] = noisy(TRAIN[8]), TRAIN[20], shifted(TRAIN[31])
    found = near_duplicates.find(TRAIN, test)
    assert set(zip(found.test.tolist(), found.train.tolist(), strict=True)) == {(3, 8), (11, 20), (5, 31)}
    assert found.test[0] == 11
    assert found.similarity.tolist() == sorted(found.similarity.tolist(), reverse=True)


def test_of_several_partners_the_most_similar_is_named():
    train = TRAIN.clone()
    train[50] = noisy(TRAIN[10])
    test = torch.cat([TEST[:3], TRAIN[10:11], mirrored(train[50]).unsqueeze(0)])
    found = near_duplicates.find(train, test)
    pairs = dict(zip(found.test.tolist(), zip(found.train.tolist(), found.flipped.tolist(), strict=True), strict=True))
    assert pairs == {3: (10, False), 4: (50, True)}


def test_one_picture_may_have_several_copies():
    found = near_duplicates.find(TRAIN, torch.stack([TRAIN[4], TEST[0], mirrored(TRAIN[4])]))
    assert sorted(found.test.tolist()) == [0, 2]
    assert found.train.tolist() == [4, 4]
