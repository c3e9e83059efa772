import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from cifar2.dataset import image_file, image_folder, near_duplicates, splits
from cifar2.errors import UserError
from cifar2.params import Data

CLASSES = ["кот", "great dane"]
DATA = {
    "sources": ["images"],
    "folder": "data/images",
    "classes": CLASSES,
    "image_size": 16,
    "val_fraction": 0.1,
    "test_fraction": 0.2,
    "split_seed": 0,
    "near_duplicates": False,
    "skip_unreadable": False,
}
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(path, pixels=None):
    path = Path("data/images", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (40, 30, 3), np.uint8) if pixels is None else pixels
    Image.fromarray(pixels).save(path)
    return path


def fill(n=20, folders=("",), classes=CLASSES):
    for folder in folders:
        for name in classes:
            for i in range(n):
                write(Path(folder, name, f"{i:03}.png"))


def load(**changes):
    return image_folder.sets(Data(**(DATA | changes)))


def test_sets_are_drawn_class_by_class():
    fill(20)
    sets = load()
    assert {name: splits.counts(split) for name, split in sets.splits.items()} == {
        "train": dict.fromkeys(CLASSES, 14),
        "val": dict.fromkeys(CLASSES, 2),
        "test": dict.fromkeys(CLASSES, 4),
    }
    assert sorted(name for names in sets.names.values() for name in names) == sorted(
        f"{name}/{i:03}.png" for name in CLASSES for i in range(20)
    )
    for name, split in sets.splits.items():
        for x, label, file in zip(split.x, split.labels, sets.names[name], strict=True):
            assert file.startswith(CLASSES[label])
            assert torch.equal(x, image_file.read(Path("data/images", file), 16))


def test_another_seed_draws_other_sets():
    fill(20)
    assert load().names["test"] == load().names["test"] != load(split_seed=1).names["test"]


def test_given_sets_are_kept():
    fill(5, ("train", "val", "test"))
    sets = load()
    assert {name: len(split.labels) for name, split in sets.splits.items()} == {"train": 10, "val": 10, "test": 10}
    assert all(file.startswith(f"{name}/") for name, names in sets.names.items() for file in names)


def test_a_set_that_is_not_given_is_drawn_from_the_training_images():
    fill(10, ("train", "val"))
    sets = load()
    assert {name: len(split.labels) for name, split in sets.splits.items()} == {"train": 16, "val": 20, "test": 4}
    assert all(file.startswith("train/") for file in sets.names["test"])


def test_a_class_may_be_called_like_a_set():
    fill(5, classes=["train", "bus"])
    assert load(classes=["train", "bus"]).splits["train"].classes == ("train", "bus")


def test_the_images_are_those_of_torchvisions_image_folder():
    fill(5, classes=["a", "b"])
    write("a/below/deeper/x.png")
    Path("data/images/a/notes.txt").write_text("no image")
    found = image_folder.find(Path("data/images"), ["a", "b"])["train"]
    assert [(str(file.path), file.label) for file in found] == ImageFolder("data/images").samples


def test_the_order_of_the_classes_gives_the_labels():
    fill(5)
    assert image_folder.find(Path("data/images"), CLASSES[::-1])["train"][0].path.parent.name == CLASSES[1]


@pytest.mark.parametrize("missed", [False, True], ids=["at once", "in the second draw"])
def test_near_duplicates_come_into_one_set(monkeypatch, missed):
    if missed:
        monkeypatch.setattr(near_duplicates, "groups", lambda images: torch.arange(len(images)))
    photograph = np.kron(RNG.integers(0, 256, (8, 8, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
    fill(12)
    for i in range(4):
        write(f"{CLASSES[0]}/same {i}.png", np.roll(photograph, i, 1))
    sets = load(near_duplicates=True, image_size=32)
    assert sorted(sum("same" in file for file in names) for names in sets.names.values()) == [0, 0, 4]
    loose = [load(image_size=32, split_seed=seed).names.values() for seed in range(10)]
    assert any(0 < sum("same" in file for file in names) < 4 for sets in loose for names in sets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: shutil.rmtree("data/images/кот"), "there is no folder data/images/кот; there are great dane"),
        (lambda: shutil.rmtree("data"), "there is no folder data/images/кот"),
        (
            lambda: Path("data/images/great dane").rename("data/images/great dame"),
            "there is no folder data/images/great dane; did you mean great dame?",
        ),
    ],
)
def test_a_missing_class_is_one_line(change, message):
    fill(5)
    change()
    with pytest.raises(UserError) as error:
        load()
    assert str(error.value) == message


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_class_needs_an_image_for_each_set(n):
    fill(5)
    for path in sorted(Path("data/images/great dane").iterdir())[n:]:
        path.unlink()
    with pytest.raises(UserError, match=f"data/images/great dane has {n} of the 3 images that it needs"):
        load()


def test_a_class_that_is_a_link_is_refused():
    fill(5)
    Path("data/images/кот").rename("elsewhere")
    Path("data/images/кот").symlink_to(Path("elsewhere").resolve())
    with pytest.raises(UserError, match="data/images/кот is a link"):
        load()


def test_one_image_in_two_classes_is_refused():
    fill(5)
    shutil.copy("data/images/кот/001.png", "data/images/great dane/copy.png")
    with pytest.raises(UserError) as error:
        load()
    assert str(error.value) == (
        "the same image is in two classes: data/images/кот/001.png and data/images/great dane/copy.png; "
        "keep one of each"
    )


def test_unreadable_images_are_all_named(capsys):
    fill(10)
    for i in (3, 7):
        Path(f"data/images/кот/{i:03}.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="unreadable images in data/images, listed above: 2"):
        load()
    named = capsys.readouterr().err.splitlines()
    assert [line.split(" is ")[0] for line in named] == ["data/images/кот/003.png", "data/images/кот/007.png"]
    sets = load(skip_unreadable=True)
    assert sets.about["unreadable"] == named
    assert sum(len(split.labels) for split in sets.splits.values()) == 18


@pytest.mark.parametrize("alike", [CLASSES, CLASSES[1:]], ids=["both classes", "one class"])
def test_a_class_of_near_duplicates_alone_cannot_be_divided(alike):
    fill(12, classes=[name for name in CLASSES if name not in alike])
    for name in alike:
        photograph = np.kron(RNG.integers(0, 256, (8, 8, 3), np.uint8), np.ones((4, 4, 1), np.uint8))
        for i in range(8):
            write(f"{name}/same {i}.png", np.roll(photograph, i % 4, i // 4))
    with pytest.raises(UserError) as error:
        load(near_duplicates=True, image_size=32)
    assert str(error.value) == (
        f"no image of {alike[0]} is in val; add some to data/images or, if all its images are alike, "
        "set data.near_duplicates in params.yaml to false"
    )


def test_a_given_set_needs_an_image_of_each_class():
    fill(5, ("train", "val", "test"))
    shutil.rmtree("data/images/val/кот")
    Path("data/images/val/кот").mkdir()
    with pytest.raises(UserError, match=r"no image of кот is in val; add some to data/images$"):
        load()


def test_equal_images_come_into_one_set_without_a_search():
    fill(12)
    for i in range(6):
        shutil.copy("data/images/кот/000.png", f"data/images/кот/copy {i}.png")
    for seed in range(5):
        names = load(split_seed=seed).names.values()
        assert sorted(sum("copy" in file for file in of_set) for of_set in names)[:2] == [0, 0]


def test_a_set_without_any_image_is_one_line():
    fill(5, ("train",))
    for name in CLASSES:
        Path("data/images/test", name).mkdir(parents=True)
    with pytest.raises(UserError, match="no image of кот is in test; add some to data/images"):
        load()


@pytest.mark.parametrize("link", ["train", "train/кот/below"])
def test_a_folder_that_is_a_link_is_refused_anywhere(link):
    fill(5, ("train",))
    target = Path("elsewhere").resolve()
    if Path("data/images", link).exists():
        Path("data/images", link).rename(target)
    else:
        target.mkdir()
    Path("data/images", link).symlink_to(target)
    with pytest.raises(UserError, match=f"data/images/{link} is a link"):
        load()


def test_hidden_folders_are_ignored():
    fill(5)
    hidden = write("кот/.ipynb_checkpoints/0.png")
    assert hidden not in [file.path for file in image_folder.find(Path("data/images"), CLASSES)["train"]]


def test_a_class_that_a_given_split_lacks_is_named():
    fill(5, ("train", "val", "test"))
    shutil.rmtree("data/images/train/кот")
    with pytest.raises(UserError, match="there is no folder data/images/train/кот"):
        load()
