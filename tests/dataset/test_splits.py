import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar2.dataset import cifar10, splits
from cifar2.errors import UserError
from cifar2.params import Features
from tests.conftest import random_features, random_split

FEATURES = Features(backbone="resnet18", image_size=64, flip_average=True)


def test_the_parts_of_a_split_are_disjoint_and_complete():
    train, val = splits.split_indices(1000, 0.1, seed=0)
    assert (len(train), len(val)) == (900, 100)
    assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(1000))


def test_a_split_is_its_seeds_alone():
    state = torch.get_rng_state()
    a, b, c = (splits.split_indices(1000, 0.1, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


def test_classes_are_chosen_and_relabelled_in_the_order_given():
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 3, 32, 32)
    labels = torch.tensor([2, 0, 1, 2, 0, 9], dtype=torch.uint8)
    split = splits.select(images, labels, torch.tensor([0, 1, 2, 4, 5]), cifar10.CLASSES, ["bird", "airplane"])
    assert split.classes == ("bird", "airplane")
    assert split.index.tolist() == [0, 1, 4]
    assert split.labels.tolist() == [0, 1, 1]
    assert split.labels.dtype == torch.int64
    assert split.images[:, 0, 0, 0].tolist() == [0, 1, 4]


def test_a_split_comes_back_from_disk(tmp_path):
    split = random_split(5, 0, ("airplane", "bird", "cat"))
    splits.save(tmp_path / "s", split)
    back = splits.load(tmp_path / "s")
    assert back.classes == split.classes
    for name, dtype in (("images", torch.uint8), ("labels", torch.int64), ("index", torch.int64)):
        assert torch.equal(getattr(back, name), getattr(split, name))
        assert getattr(back, name).dtype == dtype


def test_features_come_back_from_disk_with_what_made_them(tmp_path):
    split = random_features(random_split(5, 0), FEATURES, 0)
    splits.save(tmp_path / "s", split)
    back = splits.load(tmp_path / "s")
    assert back.features == FEATURES
    assert back.images.dtype == torch.float32
    assert torch.equal(back.images, split.images)


@pytest.mark.parametrize("features", [{"backbone": "resnet18"}, "resnet18", {"backbone": 3, "surprise": 1}])
def test_a_file_that_does_not_say_what_made_its_features_is_named(tmp_path, features):
    from cifar2 import files

    split = random_split(5, 0)
    tensors = {"images": split.images, "labels": split.labels, "index": split.index}
    files.write_tensors(tmp_path / "s", tensors, {"classes": ["a", "b"], "features": features})
    with pytest.raises(UserError, match="s is damaged"):
        splits.load(tmp_path / "s")


def test_a_file_without_pictures_is_named(tmp_path):
    from cifar2 import files

    files.write_tensors(tmp_path / "s", {"labels": torch.zeros(1)}, {"classes": ["a", "b"], "features": None})
    with pytest.raises(UserError, match=r"s is damaged \(it has no 'images'\)"):
        splits.load(tmp_path / "s")


def test_joined_splits_hold_both():
    a, b = random_split(3, 0), random_split(2, 1)
    both = splits.join(a, b)
    assert torch.equal(both.images, torch.cat([a.images, b.images]))
    assert torch.equal(both.labels, torch.cat([a.labels, b.labels]))
    assert both.index.tolist() == [0, 1, 2, 0, 1]
    assert both.features is None
    assert splits.join(*(random_features(split, FEATURES, 0) for split in (a, b))).features == FEATURES


def test_normalising_moves_black_and_white_to_minus_one_and_one():
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    x = splits.normalise(images, [0.5] * 3, [0.5] * 3)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x[:, 0, 0, 0], torch.tensor([-1, 1, -0.6]))


def test_normalising_agrees_with_torchvision():
    from torchvision.transforms.v2.functional import normalize, to_dtype

    images = random_split(4, 0).images
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    wanted = normalize(to_dtype(images, torch.float32, scale=True), mean, std)
    torch.testing.assert_close(splits.normalise(images, mean, std), wanted)
    assert images.dtype == torch.uint8


def test_channel_statistics_are_torchs():
    images = random_split(20, 0).images
    mean, std = splits.channel_statistics(images)
    x = images.double() / 255
    torch.testing.assert_close(torch.tensor(mean, dtype=torch.float64), x.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(std, dtype=torch.float64), x.std((0, 2, 3), correction=0))


SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.sampled_from([0.1, 0.5]) | st.floats(0, 1, exclude_min=True, exclude_max=True)


@given(st.integers(0, 500), SHARES, SEEDS)
def test_whatever_the_share_the_parts_are_disjoint_complete_ascending_and_of_that_size(n, val_fraction, seed):
    parts = splits.split_indices(n, val_fraction, seed)
    assert len(parts[1]) == round(n * val_fraction)
    assert sorted(torch.cat(parts).tolist()) == list(range(n))
    for part, again in zip(parts, splits.split_indices(n, val_fraction, seed), strict=True):
        assert part.tolist() == sorted(part.tolist())
        assert torch.equal(part, again)


@given(st.permutations(cifar10.CLASSES), st.integers(2, 10), SHARES, SEEDS)
def test_whatever_the_classes_a_split_holds_each_of_their_pictures_once_with_their_place_for_a_label(
    shuffled, n_classes, val_fraction, seed
):
    classes, n = shuffled[:n_classes], 60
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (n,), generator=generator, dtype=torch.uint8)
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)
    seen = []
    for part in splits.split_indices(n, val_fraction, seed):
        split = splits.select(images, labels, part, cifar10.CLASSES, classes)
        assert split.classes == tuple(classes)
        assert split.images.flatten().tolist() == split.index.tolist()
        assert set(split.index.tolist()) <= set(part.tolist())
        assert [classes[i] for i in split.labels] == [cifar10.CLASSES[labels[i]] for i in split.index]
        seen += split.index.tolist()
    assert sorted(seen) == [i for i in range(n) if cifar10.CLASSES[labels[i]] in classes]
