from pathlib import Path

import pytest
import torch

from cifar2 import files
from cifar2.dataset import splits
from cifar2.networks import classifier
from tests.conftest import SIZES

EXPLAINED, FIGURE = "data/explained.safetensors", "metrics/figures/occlusion_final.png"


def test_every_test_image_has_a_position(to_report):
    tensors, about = files.read_tensors(Path(EXPLAINED))
    assert tensors["positions"].shape == (SIZES["test"], 2)
    assert len(about["variance"]) == 2


def test_maps_are_of_the_predicted_class(to_report, run_stage, monkeypatch):
    """Of the most confident misclassified images, then of correct ones from all over the test set."""
    seen = []

    def occlusion(model, images, targets):
        seen.append((images, targets))
        return torch.zeros(len(images), 32, 32)

    monkeypatch.setattr("cifar2.evaluation.attribution.occlusion", occlusion)
    run_stage("explain.py")
    ((images, targets),) = seen
    evaluated, _ = files.read_tensors(Path("data/evaluated/final.safetensors"))
    test = splits.load(Path("data/prepared/test.safetensors"))
    predicted, wrong = evaluated["logits"][0].argmax(1), evaluated["mistakes"][:12]
    correct = (predicted == test.labels).nonzero().flatten()
    n = min(12, len(correct))
    assert len(wrong) > 2
    assert len(images) == len(wrong) + n
    assert torch.equal(images[: len(wrong)], test.x[wrong])
    assert torch.equal(targets[: len(wrong)], predicted[wrong])
    assert torch.equal(images[[len(wrong), -1]], test.x[correct[[0, -1]]])


@pytest.mark.parametrize("name", ["fine", "augmented"])
def test_a_network_without_extracted_features_is_explained(to_report, run_stage, name):
    card, networks, accuracies = classifier.load(Path(f"data/models/train/{name}.safetensors"))
    network = next(iter(networks.values()))
    classifier.save(Path("data/models/final.safetensors"), card, {"final": network}, accuracies)
    Path(EXPLAINED).unlink()
    run_stage("explain.py")
    assert Path(EXPLAINED).exists()


def test_second_run_writes_the_same_bytes(to_report, run_stage):
    first = to_report.snapshot()
    run_stage("explain.py")
    assert to_report.snapshot() == first


def test_without_the_evaluation_nothing_is_written(to_report, fails_with):
    for path in (EXPLAINED, FIGURE, "data/evaluated/final.safetensors"):
        Path(path).unlink()
    before = to_report.snapshot()
    assert "data/evaluated/final.safetensors" in fails_with("explain.py")
    assert to_report.snapshot() == before
