from pathlib import Path

import pytest
import torch

from cifar2 import params
from cifar2.dataset import splits
from cifar2.networks import transfer
from cifar2.training import hardware


def load(folder):
    return [splits.load(Path(f"data/{folder}/{name}.safetensors")) for name in ("train", "val")]


@pytest.mark.parametrize(("image_size", "flip_average"), [(32, False), (48, True)])
def test_features_are_extracted_as_params_say(project, run_stage, image_size, flip_average):
    project.params["features"] |= {"image_size": image_size, "flip_average": flip_average}
    project.write_params()
    run_stage("features.py")
    for images, features in zip(load("prepared"), load("features"), strict=True):
        expected = transfer.extract_features(images.x, "efficientnet_lite0", image_size, flip_average)
        assert torch.equal(features.x, expected)
        assert torch.equal(features.labels, images.labels)
        assert torch.equal(features.index, images.index)
        assert features.classes == images.classes
        assert features.features == params.Features(**project.params["features"])


def test_features_can_be_trained_on(project, run_stage):
    run_stage("features.py")
    run_stage("train.py", "linear")


def test_extraction_never_reads_the_test_set(project, run_stage):
    for path in ("test.safetensors", "near_duplicates.csv"):
        Path("data/prepared", path).unlink()
    run_stage("features.py")
    assert {path.name for path in Path("data/features").iterdir()} == {"train.safetensors", "val.safetensors"}


def test_number_of_threads_is_fixed_before_the_extraction(project, run_stage, monkeypatch):
    project.params["train"]["threads"] = 3
    project.write_params()
    calls = []
    monkeypatch.setattr(hardware, "fix_convolutions", calls.append)
    monkeypatch.setattr(
        transfer, "extract_features", lambda images, **_: calls.append("features") or torch.zeros(len(images), 2)
    )
    run_stage("features.py")
    assert calls == [3, "features", "features"]


def test_unknown_backbone_is_one_line_and_nothing_is_written(project, fails_with):
    project.params["features"]["backbone"] = "efficientnet"
    project.write_params()
    before = project.snapshot()
    assert "params.yaml: there is no backbone efficientnet; did you mean efficientnet_b7?" in fails_with("features.py")
    assert project.snapshot() == before
