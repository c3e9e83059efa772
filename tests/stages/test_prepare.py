import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cifar2.dataset import cifar10, splits

RNG = np.random.default_rng(0)
DATA = cifar10.Cifar10(
    RNG.integers(0, 256, (400, 3, 32, 32), np.uint8),
    RNG.integers(0, 10, 400).astype(np.uint8),
    RNG.integers(0, 256, (100, 3, 32, 32), np.uint8),
    RNG.integers(0, 10, 100).astype(np.uint8),
)
OUTPUTS = {
    "data/prepared/train.safetensors",
    "data/prepared/val.safetensors",
    "data/prepared/test.safetensors",
    "metrics/prepare.json",
    "metrics/figures/samples.png",
    "metrics/figures/class_distribution.png",
}


@pytest.fixture(autouse=True)
def small_cifar10(monkeypatch):
    monkeypatch.setattr(cifar10, "load", lambda sources, folder: DATA)


def load():
    return {n: splits.load(Path(f"data/prepared/{n}.safetensors")) for n in ("train", "val", "test")}


def test_splits_hold_exactly_the_images_of_the_chosen_classes(project, run_stage):
    run_stage("prepare.py")
    sets = load()
    expected = np.flatnonzero(np.isin(DATA.train_labels, [0, 2]))
    assert torch.cat([sets["train"].index, sets["val"].index]).sort().values.tolist() == expected.tolist()
    assert sets["test"].index.tolist() == np.flatnonzero(np.isin(DATA.test_labels, [0, 2])).tolist()
    for name, (images, labels) in {"val": DATA[:2], "test": DATA[2:]}.items():
        split = sets[name]
        assert np.array_equal(split.x.numpy(), images[split.index])
        assert np.array_equal(split.labels.numpy() * 2, labels[split.index])


def test_metrics_match_the_splits(project, run_stage):
    run_stage("prepare.py")
    metrics, sets = json.loads(Path("metrics/prepare.json").read_text()), load()
    for name, split in sets.items():
        assert metrics[f"n_{name}"] == len(split.labels)
        assert metrics["class_counts"][name] == {
            "airplane": int((split.labels == 0).sum()),
            "bird": int((split.labels == 1).sum()),
        }
    all_classes = metrics["all_classes"]
    assert list(all_classes["train"]) == list(cifar10.CLASSES)
    of_training = [all_classes["train"][name] + all_classes["val"][name] for name in cifar10.CLASSES]
    assert of_training == np.bincount(DATA.train_labels, minlength=10).tolist()
    assert list(all_classes["test"].values()) == np.bincount(DATA.test_labels, minlength=10).tolist()
    assert all_classes["val"]["bird"] == metrics["class_counts"]["val"]["bird"]
    green = sets["train"].x[:, 1].double() / 255
    assert metrics["channel_mean"][1] == pytest.approx(green.mean().item())
    assert metrics["channel_std"][1] == pytest.approx(green.std(correction=0).item())


@pytest.mark.figures
def test_second_run_writes_the_same_bytes(project, run_stage):
    run_stage("prepare.py")
    first = project.snapshot()
    assert set(first) >= OUTPUTS
    run_stage("prepare.py")
    assert project.snapshot() == first


def test_labels_follow_the_order_of_the_classes(project, run_stage):
    project.params["data"]["classes"] = ["truck", "cat", "frog"]
    project.write_params()
    run_stage("prepare.py")
    test = load()["test"]
    assert test.classes == ("truck", "cat", "frog")
    assert [DATA.test_labels[i] for i in test.index] == [(9, 3, 6)[label] for label in test.labels]


@pytest.mark.parametrize("val_fraction", [1e-5, 0.99999])
def test_split_without_images_is_one_line_and_nothing_is_written(project, fails_with, val_fraction):
    project.params["data"]["val_fraction"] = val_fraction
    project.write_params()
    before = project.snapshot()
    assert "; choose another data.val_fraction in params.yaml" in fails_with("prepare.py")
    assert project.snapshot() == before
