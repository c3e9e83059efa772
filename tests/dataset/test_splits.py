from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cifar2 import files
from cifar2.dataset import cifar10, splits
from cifar2.errors import UserError
from cifar2.params import Features
from tests.conftest import random_features, random_split

FEATURES = Features(backbone="resnet18", image_size=64, flip_average=True)
SEEDS = st.integers(0, 2**32 - 1)
FRACTIONS = st.sampled_from([0.1, 0.5]) | st.floats(0, 1, exclude_min=True, exclude_max=True)


@given(st.integers(0, 500), FRACTIONS, SEEDS)
def test_split_indices_divide_all_images_in_ascending_order(n, val_fraction, seed):
    indices = splits.split_indices(n, val_fraction, seed)
    assert len(indices[1]) == round(n * val_fraction)
    assert sorted(torch.cat(indices).tolist()) == list(range(n))
    assert all(half.tolist() == sorted(half.tolist()) for half in indices)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=3, max_size=200),
    st.sampled_from([(0.1, 0.2), (0.3,), (0.25, 0.25)]),
    SEEDS,
)
def test_stratified_subsets_take_no_more_than_their_fraction(drawn, fractions, seed):
    labels, groups = (torch.tensor(column) for column in zip(*drawn, strict=True))
    subsets = splits.stratified(labels, groups, fractions, seed)
    assert sorted(torch.cat(subsets).tolist()) == list(range(len(labels)))
    in_subset = [set(groups[subset].tolist()) for subset in subsets]
    assert sum(map(len, in_subset)) == len(set(groups.tolist()))
    first = {group: label for label, group in reversed(drawn)}
    for subset, fraction in zip(subsets, fractions, strict=False):
        of_group = torch.tensor([first[group] for group in groups[subset].tolist()], dtype=torch.int64)
        most = [max(1, round(n * fraction)) for n in labels.bincount().tolist()]
        assert all(n <= limit for n, limit in zip(of_group.bincount().tolist(), most, strict=False))


def test_stratified_subsets_of_single_examples_have_their_fractions():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 3)
    subsets = splits.stratified(labels, torch.arange(83), (0.1, 0.2), seed=0)
    assert [labels[subset].bincount().tolist() for subset in subsets] == [[5, 3, 1], [10, 6, 1], [35, 21, 1]]


def test_joined_groups_leave_most_of_a_stratified_draw():
    labels, groups = torch.arange(300) % 3, torch.arange(300)
    before = splits.stratified(labels, groups, (0.1, 0.2), seed=0)
    groups[5], groups[7] = groups[8], groups[10]
    after = splits.stratified(labels, groups, (0.1, 0.2), seed=0)
    moved = [set(a.tolist()) ^ set(b.tolist()) for a, b in zip(before, after, strict=True)]
    assert len(set.union(*moved)) <= 8


def test_split_indices_depend_on_the_seed_alone():
    state = torch.get_rng_state()
    a, b, c = (splits.split_indices(1000, 0.1, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


@given(st.permutations(cifar10.CLASSES), st.integers(2, 10), SEEDS)
def test_labels_are_positions_of_the_chosen_classes(shuffled, n_classes, seed):
    classes, n = shuffled[:n_classes], 60
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (n,), generator=generator, dtype=torch.uint8)
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1)
    index = torch.randperm(n, generator=generator)[:40]
    split = splits.select(images, labels, index, cifar10.CLASSES, classes)
    assert split.classes == tuple(classes)
    assert split.labels.dtype == torch.int64
    assert split.index.tolist() == [i for i in index.tolist() if cifar10.CLASSES[labels[i]] in classes]
    assert split.x.flatten().tolist() == split.index.tolist()
    assert [classes[label] for label in split.labels] == [cifar10.CLASSES[labels[i]] for i in split.index]


@pytest.mark.parametrize("features", [None, FEATURES])
def test_split_comes_back_from_disk(tmp_path, features):
    split = random_split(5, 0, ("airplane", "bird", "cat"))
    if features:
        split = random_features(split, features, 0)
    splits.save(tmp_path / "s", split)
    loaded = splits.load(tmp_path / "s")
    assert (loaded.classes, loaded.features) == (split.classes, features)
    for name in ("x", "labels", "index"):
        assert torch.equal(getattr(loaded, name), getattr(split, name))
        assert getattr(loaded, name).dtype == getattr(split, name).dtype


@pytest.mark.parametrize(
    ("features", "missing"),
    [({"backbone": "resnet18"}, ""), ("resnet18", ""), ({"backbone": 3, "surprise": 1}, ""), (None, "images")],
)
def test_invalid_file_is_named(tmp_path, features, missing):
    split = random_split(5, 0)
    tensors = {"images": split.x, "labels": split.labels, "index": split.index}
    tensors.pop(missing, None)
    files.write_tensors(tmp_path / "s", tensors, {"classes": ["a", "b"], "features": features})
    with pytest.raises(UserError, match=rf"s is corrupted \(.*{missing}"):
        splits.load(tmp_path / "s")


def test_joined_split_holds_both():
    a, b = (replace(random_split(n, seed), features=FEATURES) for seed, n in enumerate((3, 2)))
    both = splits.join(a, b)
    assert torch.equal(both.x, torch.cat([a.x, b.x]))
    assert torch.equal(both.labels, torch.cat([a.labels, b.labels]))
    assert both.index.tolist() == [0, 1, 2, 0, 1]
    assert (both.classes, both.features) == (a.classes, FEATURES)


def test_channel_statistics_match_torch():
    images = random_split(20, 0).x
    mean, std = splits.channel_statistics(images)
    x = images.double() / 255
    torch.testing.assert_close(torch.tensor(mean, dtype=torch.float64), x.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(std, dtype=torch.float64), x.std((0, 2, 3), correction=0))
