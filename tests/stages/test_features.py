from pathlib import Path

import pytest
import torch

from cifar2 import params
from cifar2.dataset import splits as dataset
from cifar2.networks import transfer
from cifar2.training import hardware

PARTS = ("train", "val")


def splits(folder):
    return {name: dataset.load(Path(f"data/{folder}/{name}.safetensors")) for name in PARTS}


@pytest.mark.parametrize("flip_average", [False, True])
def test_each_picture_has_the_features_that_the_backbone_makes_of_it(project, run_stage, flip_average):
    project.params["features"]["flip_average"] = flip_average
    project.write_params()
    run_stage("features.py")
    prepared, found = splits("prepared"), splits("features")
    for name in PARTS:
        wanted = transfer.extract_features(prepared[name].images, "efficientnet_lite0", 32, flip_average)
        assert torch.equal(found[name].images, wanted)
        assert torch.equal(found[name].labels, prepared[name].labels)
        assert torch.equal(found[name].index, prepared[name].index)
        assert found[name].classes == prepared[name].classes
        assert found[name].features == params.Features(
            backbone="efficientnet_lite0", image_size=32, flip_average=flip_average
        )


def test_the_size_of_the_pictures_is_that_of_params(project, run_stage):
    project.params["features"]["image_size"] = 48
    project.write_params()
    run_stage("features.py")
    wanted = transfer.extract_features(splits("prepared")["val"].images, "efficientnet_lite0", 48, flip_average=False)
    assert torch.equal(splits("features")["val"].images, wanted)


def test_training_reads_what_it_wrote(project, run_stage):
    run_stage("features.py")
    run_stage("train.py", "linear")


def test_it_never_opens_the_test_split(project, run_stage):
    for path in ("test.safetensors", "near_duplicates.csv"):
        Path("data/prepared", path).unlink()
    run_stage("features.py")
    assert {path.name for path in Path("data/features").iterdir()} == {"train.safetensors", "val.safetensors"}


def test_a_second_run_writes_the_same_bytes(project, run_stage):
    run_stage("features.py")
    first = project.snapshot()
    torch.rand(1)
    run_stage("features.py")
    assert project.snapshot() == first


def test_convolutions_have_the_number_of_threads_of_the_experiment(project, run_stage, monkeypatch):
    project.params["train"]["threads"] = 3
    project.write_params()
    done = []
    monkeypatch.setattr(hardware, "fix_convolutions", done.append)
    monkeypatch.setattr(
        transfer, "features", lambda images, **_: done.append("features") or torch.zeros(len(images), 2)
    )
    run_stage("features.py")
    assert done == [3, "features", "features"]


def test_an_unknown_backbone_is_one_line_and_nothing_is_written(project, fails_with):
    project.params["features"]["backbone"] = "efficientnet"
    project.write_params()
    before = project.snapshot()
    assert "params.yaml: there is no backbone efficientnet; did you mean efficientnet_b7?" in fails_with("features.py")
    assert project.snapshot() == before


def test_missing_data_is_one_line(project, fails_with):
    Path("data/prepared/train.safetensors").unlink()
    assert fails_with("features.py").startswith("error: data/prepared/train.safetensors is missing; `dvc repro`")
