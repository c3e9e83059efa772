import json
import shutil
from pathlib import Path

import pytest
import torch

from cifar2.dataset import splits
from cifar2.dataset.examples import normalise
from cifar2.evaluation.uncertainty import standard_error
from cifar2.networks import classifier, inference
from tests.conftest import table

TABLE = Path("extended/metrics/ablation.csv")


@pytest.fixture
def extended(trained, run_stage):
    """The base without flips, and without averaging."""
    changes = {"without_flip": {"flip": False}, "without_average": {"flip_average": False, "lr": 0.001}}
    trained.params["extended"]["ablation"] = {"base": "augmented", "changes": changes}
    trained.write_params()
    for name in changes:
        run_stage("train.py", name)
    return trained


def ablation():
    return {row.pop("name"): {key: float(value) for key, value in row.items()} for row in table(TABLE)}


def folder(name):
    return "" if name == "augmented" else "extended"


def correct(name, flip_average):
    """Whether each seed's model classifies each validation image correctly."""
    val = splits.load(Path("data/prepared/val.safetensors"))
    x = normalise(val.x, [0.5] * 3, [0.5] * 3)
    _, networks, _ = classifier.load(Path(folder(name), f"data/models/train/{name}.safetensors"))
    predicted = [inference.logits(network, x, flip_average).argmax(1) for network in networks.values()]
    return (torch.stack(predicted) == val.labels).double()


def test_variants_are_compared_with_the_base(extended, run_stage):
    run_stage("ablate.py")
    rows = ablation()
    assert list(rows) == ["augmented", "without_flip", "without_average"]
    base = correct("augmented", flip_average=True)
    for name, row in rows.items():
        other = correct(name, flip_average=name != "without_average")
        trained = json.loads(Path(folder(name), f"metrics/train/{name}.json").read_text())
        assert row["val_accuracy"] == pytest.approx(trained["val_accuracy"])
        assert row["val_accuracy_se"] == pytest.approx(trained["val_accuracy_se"])
        assert row["difference"] == pytest.approx((base - other).mean().item())
        assert row["difference_se"] == pytest.approx(standard_error(base - other))
    assert rows["augmented"]["difference"] == rows["augmented"]["difference_se"] == 0
    assert rows["without_average"]["difference"] != 0


def test_flip_average_is_that_of_each_configuration(extended, run_stage):
    """On images of every brightness: some are close to the border between the classes."""
    noise = torch.randint(100, (600, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    images = (noise + torch.linspace(0, 155, 600).view(-1, 1, 1, 1)).to(torch.uint8)
    labels = torch.arange(600) % 2
    splits.save(
        Path("data/prepared/val.safetensors"), splits.Split(images, labels, torch.arange(600), ("airplane", "bird"))
    )
    averaged, plain = ([correct(name, flip) for name in ("augmented", "without_average")] for flip in (True, False))
    assert not torch.equal(averaged[0], plain[0])
    assert not torch.equal(averaged[1], plain[1])
    run_stage("ablate.py")
    assert ablation()["augmented"]["val_accuracy"] == pytest.approx(averaged[0].mean().item())
    expected = standard_error(averaged[0] - plain[1])
    assert ablation()["without_average"]["difference_se"] == pytest.approx(expected, rel=1e-9)


def test_second_run_writes_the_same_table(extended, run_stage):
    before = extended.snapshot()
    run_stage("ablate.py")
    after = extended.snapshot()
    assert after.keys() - before.keys() == {str(TABLE)}
    run_stage("ablate.py")
    assert extended.snapshot() == after


def test_ablation_reads_only_the_validation_images(extended, run_stage):
    for path in ("train.safetensors", "test.safetensors", "near_duplicates.csv"):
        Path("data/prepared", path).unlink()
    shutil.rmtree("data/features")
    run_stage("ablate.py")


def test_untrained_configuration_is_one_line_and_writes_nothing(trained, fails_with):
    before = trained.snapshot()
    assert "extended/data/models/train/without_flip.safetensors is missing" in fails_with("ablate.py")
    assert trained.snapshot() == before
