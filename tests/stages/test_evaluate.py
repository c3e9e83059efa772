import csv
import json
from pathlib import Path

import pytest

from cifar2 import dataset, models
from tests.conftest import SIZES


@pytest.fixture
def selected(trained, run_stage):
    run_stage("select_model.py")
    run_stage("refit.py")
    return trained


def accuracy(network, split):
    x = dataset.normalise(split.images, [0.5] * 3, [0.5] * 3)
    return (models.logits(network, x).argmax(1) == split.labels).double().mean().item()


def test_its_numbers_are_those_of_the_models_on_the_test_split(selected, run_stage):
    run_stage("evaluate.py", "mlp")
    found = json.loads(Path("metrics/evaluate/mlp.json").read_text())
    test = dataset.load(Path("data/prepared/test.safetensors"))
    card, final = models.load(Path("data/models/final.safetensors"))
    _, seeds = models.load(Path("data/models/selected/mlp.safetensors"))
    refit = json.loads(Path("metrics/refit.json").read_text())

    assert found["config"] == card.configuration
    assert found["n_test"] == SIZES["test"]
    assert found["test_accuracy"] == accuracy(final["final"], test)
    low, high = found["test_accuracy_ci95"]
    assert low < found["test_accuracy"] < high or low < found["test_accuracy"] == 1 == high
    by_seed = [accuracy(network, test) for network in seeds.values()]
    assert found["n_seeds"] == 2
    assert found["test_accuracy_seeds_mean"] == pytest.approx(sum(by_seed) / 2)
    assert found["test_accuracy_seeds_std"] == pytest.approx(abs(by_seed[0] - by_seed[1]) / 2**0.5)
    assert sum(map(sum, found["confusion_matrix"])) == SIZES["test"]
    assert [sum(row) for row in found["confusion_matrix"]] == test.labels.bincount().tolist()
    assert {k: found[k] for k in ("val_accuracy", "train_accuracy")} == {
        k: refit[k] for k in ("val_accuracy", "train_accuracy")
    }


def test_the_predictions_for_dvcs_confusion_plot_agree_with_the_matrix(selected, run_stage):
    run_stage("evaluate.py", "mlp")
    found = json.loads(Path("metrics/evaluate/mlp.json").read_text())
    with Path("metrics/evaluate/mlp_predictions.csv").open() as file:
        pairs = [(row["actual"], row["predicted"]) for row in csv.DictReader(file)]
    classes = ("airplane", "bird")
    assert found["confusion_matrix"] == [[pairs.count((t, p)) for p in classes] for t in classes]


def test_a_second_run_writes_the_same_bytes(selected, run_stage):
    run_stage("evaluate.py", "mlp")
    first = selected.snapshot()
    run_stage("evaluate.py", "mlp")
    assert selected.snapshot() == first
    assert {"metrics/figures/confusion_mlp.png", "metrics/figures/mistakes_mlp.png"} <= set(first)


def test_one_seed_has_no_spread(selected, run_stage):
    card, seeds = models.load(Path("data/models/selected/mlp.safetensors"))
    models.save(Path("data/models/selected/mlp.safetensors"), card, {"seed0": seeds["seed0"]})
    run_stage("evaluate.py", "mlp")
    assert json.loads(Path("metrics/evaluate/mlp.json").read_text())["test_accuracy_seeds_std"] is None


def test_a_damaged_model_is_one_line_and_nothing_is_written(selected, fails_with):
    path = Path("data/models/final.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    before = selected.snapshot()
    assert "data/models/final.safetensors is damaged" in fails_with("evaluate.py", "mlp")
    assert selected.snapshot() == before
