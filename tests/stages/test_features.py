import shutil
from pathlib import Path

import pytest
import torch

from cifar2 import params
from cifar2.dataset import splits
from cifar2.networks import transfer
from cifar2.training import hardware

SETS = ("train", "val", "test")


def load(folder):
    return [splits.load(Path(f"data/{folder}/{name}.safetensors")) for name in SETS]


@pytest.mark.parametrize(("image_size", "flip_average"), [(32, False), (48, True)])
def test_features_are_extracted_as_params_say(project, run_stage, image_size, flip_average):
    project.params["features"] |= {"image_size": image_size, "flip_average": flip_average}
    project.write_params()
    for name in SETS:
        run_stage("features.py", name)
    for images, features in zip(load("prepared"), load("features"), strict=True):
        expected = transfer.extract_features(images.x, "efficientnet_lite0", image_size, flip_average)
        assert torch.equal(features.x, expected)
        assert torch.equal(features.labels, images.labels)
        assert torch.equal(features.index, images.index)
        assert features.classes == images.classes
        assert features.features == params.Features(**project.params["features"])


def test_features_can_be_trained_on(project, run_stage):
    run_stage("features.py", "train")
    run_stage("features.py", "val")
    run_stage("train.py", "linear")


@pytest.mark.parametrize("name", SETS)
def test_extraction_reads_and_writes_one_set_alone(project, run_stage, name):
    for other in {*SETS} - {name}:
        Path(f"data/prepared/{other}.safetensors").unlink()
    shutil.rmtree("data/features")
    run_stage("features.py", name)
    assert [path.name for path in Path("data/features").iterdir()] == [f"{name}.safetensors"]


def test_instructions_are_fixed_before_the_extraction(project, run_stage, monkeypatch):
    calls = []
    monkeypatch.setattr(hardware, "fix_instructions", calls.append)
    monkeypatch.setattr(
        transfer, "extract_features", lambda images, **_: calls.append("features") or torch.zeros(len(images), 2)
    )
    run_stage("features.py", "val")
    assert calls == ["avx2", "features"]


def test_unknown_backbone_is_one_line_and_nothing_is_written(project, fails_with):
    project.params["features"]["backbone"] = "efficientnet"
    project.write_params()
    before = project.snapshot()
    assert "params.yaml: there is no backbone efficientnet; did you mean efficientnet_b7?" in fails_with(
        "features.py", "val"
    )
    assert project.snapshot() == before
