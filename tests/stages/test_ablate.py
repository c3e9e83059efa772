import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from cifar2.dataset import splits
from cifar2.evaluation.uncertainty import standard_error
from cifar2.networks import classifier
from tests.conftest import small

TABLE = Path("beyond/metrics/ablation.csv")


@pytest.fixture
def beyond(trained, run_stage):
    """The baseline, the same without flips and without averaging, and a configuration of another family."""
    augmented = trained.params["configs"]["augmented"]
    trained.params["beyond"] = {
        "baseline": augmented,
        "without_flip": augmented | {"flip": False},
        "without_average": augmented | {"flip_average": False, "lr": 0.001},
        "large": small(trained.params["configs"]["convolutional"]),
    }
    trained.write_params()
    for name in trained.params["beyond"]:
        run_stage("train.py", name)
    return trained


def table():
    with TABLE.open() as file:
        return {
            row["name"]: {key: float(value) for key, value in row.items() if key != "name"}
            for row in csv.DictReader(file)
        }


def correct(path, flip_average=None):
    val = splits.load(Path("data/prepared/val.safetensors"))
    x = splits.normalise(val.images, [0.5] * 3, [0.5] * 3)
    card, networks, _ = classifier.load(Path(path))
    average = card.flip_average if flip_average is None else flip_average
    answers = [classifier.logits(network, x, average).argmax(1) for network in networks.values()]
    return torch.stack([answer == val.labels for answer in answers]).double()


def test_each_of_the_family_is_compared_with_the_baseline(beyond, run_stage):
    run_stage("ablate.py")
    found = table()
    assert list(found) == ["baseline", "without_flip", "without_average"]
    whole = correct("beyond/data/models/train/baseline.safetensors")
    for name, row in found.items():
        other = correct(f"beyond/data/models/train/{name}.safetensors")
        trained = json.loads(Path(f"beyond/metrics/train/{name}.json").read_text())
        assert row["val_accuracy"] == pytest.approx(trained["val_accuracy"])
        assert row["val_accuracy_se"] == pytest.approx(trained["val_accuracy_se"])
        assert row["difference"] == pytest.approx((whole - other).mean().item())
        assert row["difference_se"] == pytest.approx(standard_error(whole - other))
    assert found["baseline"]["difference"] == found["baseline"]["difference_se"] == 0
    assert found["without_average"]["difference"] != 0


def test_each_configuration_answers_with_or_without_mirror_images_as_it_was_made_to(beyond, run_stage):
    """On pictures of every brightness, of which some lie next to the border between the classes."""
    noise = torch.randint(100, (600, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    images = (noise + torch.linspace(0, 155, 600).view(-1, 1, 1, 1)).to(torch.uint8)
    labels = torch.arange(600) % 2
    splits.save(
        Path("data/prepared/val.safetensors"), splits.Split(images, labels, torch.arange(600), ("airplane", "bird"))
    )
    whole = Path("beyond/data/models/train/baseline.safetensors")
    other = Path("beyond/data/models/train/without_average.safetensors")
    assert not torch.equal(correct(whole, flip_average=False), correct(whole))
    assert not torch.equal(correct(other, flip_average=True), correct(other))
    run_stage("ablate.py")
    assert table()["baseline"]["val_accuracy"] == pytest.approx(correct(whole).mean().item())
    wanted = standard_error(correct(whole) - correct(other))
    assert table()["without_average"]["difference_se"] == pytest.approx(wanted, rel=1e-9)


def test_it_writes_its_table_alone_and_a_second_run_the_same_bytes(beyond, run_stage):
    before = beyond.snapshot()
    run_stage("ablate.py")
    after = beyond.snapshot()
    assert after.keys() - before.keys() == {str(TABLE)}
    run_stage("ablate.py")
    assert beyond.snapshot() == after


def test_it_opens_no_split_but_the_validation_pictures(beyond, run_stage):
    for path in ("train.safetensors", "test.safetensors", "near_duplicates.csv"):
        Path("data/prepared", path).unlink()
    shutil.rmtree("data/features")
    run_stage("ablate.py")


def test_a_configuration_that_was_not_trained_is_one_line_and_nothing_is_written(trained, fails_with):
    before = trained.snapshot()
    assert "beyond/data/models/train/without_flip.safetensors is missing" in fails_with("ablate.py")
    assert trained.snapshot() == before
