import csv
from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate

from cifar2.dataset import cifar10, near_duplicates


def photographs(n, seed):
    """Structured random images: coarse and fine blots of colour on a background."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.full((n, 3, 32, 32), 128.0)
    for size, contrast in ((4, 40), (8, 25), (16, 25)):
        blots = torch.randn(n, 3, size, size, generator=generator)
        image += contrast * interpolate(blots, (32, 32), mode="bicubic")
    return image.clamp(0, 255).to(torch.uint8)


def crop(rows, columns):
    def cropped(image):
        part = image[:, slice(*rows), slice(*columns)].float().unsqueeze(0)
        return interpolate(part, (32, 32), mode="bicubic", antialias=True)[0].clamp(0, 255).to(torch.uint8)

    return cropped


def brightened(image):
    return (image.float() * 0.8 + 45).clamp(0, 255).to(torch.uint8)


def mirrored(image):
    return image.flip(-1)


def noisy(image):
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(9))
    return (image.float() + 4 * noise).clamp(0, 255).to(torch.uint8)


TRAIN, TEST = photographs(60, 0), photographs(30, 1)


@pytest.mark.parametrize(
    ("copy", "flipped"),
    [
        (lambda image: image, False),
        (lambda image: image.roll((2, -3), (1, 2)), False),
        (crop((3, 32), (1, 30)), False),
        (crop((0, 32), (3, 29)), False),
        (brightened, False),
        (noisy, False),
        (mirrored, True),
        (lambda image: brightened(crop((2, 30), (4, 32))(mirrored(image))), True),
    ],
    ids=["same", "shifted", "cropped", "widened", "brightened", "noisy", "mirrored", "all"],
)
def test_copy_of_a_training_image_is_found(copy, flipped):
    test = TEST.clone()
    test[7] = copy(TRAIN[42])
    pairs = near_duplicates.find(TRAIN, test)
    assert pairs.test.tolist() == [7]
    assert pairs.train.tolist() == [42]
    assert pairs.flipped.tolist() == [flipped]
    assert near_duplicates.MIN_SIMILARITY <= pairs.similarity.item() <= 1 + 1e-9


def test_different_images_are_no_pairs():
    pairs = near_duplicates.find(TRAIN, TEST)
    assert [len(column) for column in pairs] == [0, 0, 0, 0]
    assert [column.dtype for column in pairs] == [torch.int64, torch.int64, torch.bool, torch.float64]


def test_images_with_the_same_background_are_no_pair():
    """Two objects in front of one sky: the whole images are similar, their drawings are not."""
    sky = torch.linspace(60, 200, 32).view(1, 1, 32, 1).expand(1, 3, 32, 32)
    train, test = (
        (sky + (objects.float() - 128) * 0.2).clamp(0, 255).to(torch.uint8) for objects in (TRAIN[:20], TEST[:20])
    )
    correlations = torch.corrcoef(torch.cat([train, test]).flatten(1).float())
    assert (correlations > near_duplicates.MIN_SIMILARITY).all()
    assert len(near_duplicates.find(train, test).test) == 0


def test_images_of_one_outline_with_other_details_are_no_pair():
    generator = torch.Generator().manual_seed(2)
    outline = 60 * interpolate(torch.randn(1, 3, 6, 6, generator=generator), (32, 32), mode="bicubic")
    details = 25 * interpolate(torch.randn(2, 3, 16, 16, generator=generator), (32, 32), mode="bicubic")
    one, other = torch.split((128 + outline + details).clamp(0, 255).to(torch.uint8), 1)
    assert torch.corrcoef(torch.cat([one, other]).flatten(1).float())[0, 1] > near_duplicates.MIN_SIMILARITY
    assert len(near_duplicates.find(one, other).test) == 0
    assert len(near_duplicates.find(one, noisy(one)).test) == 1


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
    test[3], test[11], test[5] = noisy(TRAIN[8]), TRAIN[20], crop((2, 31), (0, 32))(TRAIN[31])
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


def test_pairs_within_a_set_leave_out_the_image_itself():
    images = TRAIN.clone()
    images[50] = noisy(mirrored(images[10]))
    pairs = near_duplicates.find_within(images)
    found = sorted(zip(*(column.tolist() for column in pairs[:3]), strict=True))
    assert found == [(10, 50, True), (50, 10, True)]


@pytest.mark.parametrize("n", [1, 2])
def test_few_images_have_their_pairs(n):
    assert len(near_duplicates.find(TRAIN[:n], TRAIN[:1]).test) == 1
    assert len(near_duplicates.find_within(TRAIN[:1].repeat(n, 1, 1, 1)).test) == (0 if n == 1 else n)


def test_images_beyond_one_batch_are_found(monkeypatch):
    monkeypatch.setattr(near_duplicates, "BATCH", 7)
    test = torch.cat([TEST, TRAIN[33:35]])
    pairs = near_duplicates.find(TRAIN, test)
    assert sorted(zip(pairs.test.tolist(), pairs.train.tolist(), strict=True)) == [(30, 33), (31, 34)]


def test_pairs_do_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(near_duplicates, "BATCH", 10)
    threads = torch.get_num_threads()
    found = []
    for n in (1, 3):
        torch.set_num_threads(n)
        found.append(near_duplicates.find(TRAIN, torch.cat([TEST, TRAIN.flip(-1)])))
    torch.set_num_threads(threads)
    assert len(found[0].test) == len(TRAIN)
    assert all(torch.equal(*columns) for columns in zip(*found, strict=True))


def test_groups_join_near_duplicates_of_near_duplicates():
    images = TRAIN.clone()
    images[20], images[40], images[50] = brightened(TRAIN[10]), mirrored(TRAIN[10]), noisy(TRAIN[30])
    groups = near_duplicates.groups(images)
    assert len(groups.unique()) == 57
    assert groups[10] == groups[20] == groups[40] != groups[30] == groups[50]


def test_larger_images_are_searched_at_32_pixels():
    large = interpolate(TRAIN.float(), (96, 96), mode="nearest").to(torch.uint8)
    pairs = near_duplicates.find(large, large[[7, 12]])
    assert pairs.train[pairs.test.argsort()].tolist() == [7, 12]


def test_most_similar_pair_of_two_searches_is_kept():
    def pairs(test, train, similarity):
        indices = torch.tensor(test), torch.tensor(train)
        return near_duplicates.Pairs(*indices, torch.zeros(len(test), dtype=torch.bool), torch.tensor(similarity))

    both = near_duplicates.most_similar(pairs([4, 9], [0, 1], [0.9, 0.8]), pairs([9, 2], [5, 6], [0.95, 0.85]))
    assert both.test.tolist() == [9, 4, 2]
    assert both.train.tolist() == [5, 0, 6]


# The hand-checked list of Barz and Denzler, by official index, for all ten classes: duplicates_cifar10.csv of "Do we
# train on test data? Purging CIFAR of near-duplicates", 2020, https://doi.org/10.3390/jimaging6060041.
# Judgments: 0 the same image, 1 a near-duplicate (one photograph), 2 very similar but not one photograph.
LISTED = Path(__file__).with_name("barz_denzler.csv")


@pytest.mark.slow
@pytest.mark.parametrize(("classes", "n_listed"), [(("airplane", "bird"), 54), (cifar10.CLASSES, 249)], ids=["2", "10"])
def test_most_pairs_of_barz_and_denzler_are_found(classes, n_listed):
    """Read the archive downloaded by ``make repro``."""
    data = cifar10.load(["folder", "npm", "torchvision"], Path("data/raw"))
    chosen = torch.tensor([cifar10.CLASSES.index(name) for name in classes])
    train, test = (
        torch.isin(torch.from_numpy(labels), chosen).nonzero().squeeze(1)
        for labels in (data.train_labels, data.test_labels)
    )
    with LISTED.open() as file:
        rows = [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]
    listed = {row["test_index"] for row in rows if row["judgment"] < 2} & set(test.tolist())
    images = torch.from_numpy(data.train_images)[train], torch.from_numpy(data.test_images)[test]
    found = set(test[near_duplicates.find(*images).test].tolist())
    assert len(listed) == n_listed
    assert len(listed & found) >= 0.85 * n_listed
