import json
from pathlib import Path

import pytest
import torch

from cifar2 import params
from cifar2.networks import classifier
from tests.stages.test_select_model import wins

EACH_KIND = pytest.mark.parametrize("name", ["fine", "augmented", "convolutional", "linear"])


def refit():
    return json.loads(Path("metrics/refit/final.json").read_text())


@EACH_KIND
def test_final_model_is_a_new_one_of_the_best_configuration(trained, run_stage, name):
    wins(name)
    run_stage("select_model.py")
    run_stage("refit.py", "final")
    card, final, accuracies = classifier.load(Path("data/models/final.safetensors"))
    assert card.name == refit()["config"] == name
    assert card.configuration == params.load().configs[name]
    assert refit()["trained_on"] == ["train"]
    assert 0 <= refit()["val_accuracy"] <= 1
    assert refit()["kept_epoch"] == [2]
    assert accuracies == {key: refit()[key] for key in ("val_accuracy", "train_accuracy")}
    family = trained.params["configs"][name]["family"]
    chosen, seeds, _ = classifier.load(Path(f"data/models/{family}.safetensors"))
    assert card == chosen
    weights = {key: next(network.parameters()) for key, network in (seeds | final).items()}
    for key in seeds:
        assert not torch.equal(weights["final"], weights[key])


@EACH_KIND
def test_refit_differs_from_training_only_in_the_seed(trained, run_stage, name):
    """With one of train.seeds it gives the model of that seed."""
    wins(name)
    run_stage("select_model.py")
    trained.params["train"]["seeds"], trained.params["refit"]["seed"] = [7], 1
    trained.write_params()
    run_stage("refit.py", "final")
    _, final, _ = classifier.load(Path("data/models/final.safetensors"))
    _, seeds, _ = classifier.load(Path(f"data/models/train/{name}.safetensors"))
    pairs = zip(final["final"].state_dict().values(), seeds["seed1"].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", ["fine", "convolutional", "linear"])
def test_refit_reads_only_the_selection_and_its_input(trained, run_stage, name):
    wins(name)
    run_stage("select_model.py")
    folder = Path("data", trained.params["configs"][name]["input"])
    inputs = {folder / "train.safetensors", folder / "val.safetensors", Path("data/models/selected/final.json")}
    for path in {path for path in Path("data").rglob("*") if path.is_file()} - inputs:
        path.unlink()
    run_stage("refit.py", "final")


def test_refit_reads_the_selected_hyperparameters(trained, run_stage):
    """A change to another configuration does not retrain the final model."""
    run_stage("select_model.py")
    run_stage("refit.py", "final")
    before = Path("data/models/final.safetensors").read_bytes()
    for configuration in trained.params["configs"].values():
        configuration["lr"] *= 2
    trained.write_params()
    run_stage("refit.py", "final")
    assert Path("data/models/final.safetensors").read_bytes() == before


@EACH_KIND
def test_refit_on_validation_images_has_no_validation_accuracy(trained, run_stage, name):
    wins(name)
    trained.params["refit"]["include_val"] = True
    trained.write_params()
    run_stage("select_model.py")
    run_stage("refit.py", "final")
    assert refit()["trained_on"] == ["train", "val"]
    assert refit()["val_accuracy"] is None
    assert classifier.load(Path("data/models/final.safetensors"))[2]["val_accuracy"] is None


def stopping_early(trained, run_stage):
    wins("fine")
    trained.params["configs"]["fine"] |= {"early_stopping": 1, "epochs": 20, "lr": 0.3}
    trained.write_params()
    run_stage("select_model.py")


def test_refit_with_early_stopping_reports_the_kept_epoch(trained, run_stage):
    stopping_early(trained, run_stage)
    run_stage("refit.py", "final")
    losses = [float(line.split(",")[5]) for line in Path("metrics/refit/final_curve.csv").read_text().splitlines()[1:]]
    assert len(losses) < 20
    assert refit()["kept_epoch"] == [1 + losses.index(min(losses))]


def test_early_stopping_with_include_val_is_one_line(trained, run_stage, fails_with):
    stopping_early(trained, run_stage)
    trained.params["refit"]["include_val"] = True
    trained.write_params()
    before = trained.snapshot()
    message = fails_with("refit.py", "final")
    assert message == "error: params.yaml: refit.include_val leaves no validation set to stop fine early by"
    assert trained.snapshot() == before


def test_diverged_refit_is_one_line_and_nothing_is_written(trained, run_stage, fails_with):
    run_stage("select_model.py")
    selected = json.loads(Path("data/models/selected/final.json").read_text())
    selected["configuration"]["lr"] = 1e30
    Path("data/models/selected/final.json").write_text(json.dumps(selected))
    before = trained.snapshot()
    assert "diverged at seed 100, epoch 1, step" in fails_with("refit.py", "final")
    assert trained.snapshot() == before


@pytest.mark.parametrize("configuration", [{"lr": "x"}, {"model": "svm"}, 3])
def test_invalid_selection_is_one_line(trained, fails_with, configuration):
    Path("data/models/selected").mkdir()
    Path("data/models/selected/final.json").write_text(json.dumps({"name": "fine", "configuration": configuration}))
    assert "data/models/selected/final.json is corrupted" in fails_with("refit.py", "final")


def test_final_model_of_the_original_family_is_trained_too(selected):
    card, final, _ = classifier.load(Path("data/models/final_mlp.safetensors"))
    assert card.name == json.loads(Path("metrics/select.json").read_text())["best_per_family"]["mlp"]
    assert card.configuration.family == "mlp"
    assert list(final) == ["final"]
    assert json.loads(Path("metrics/refit/final_mlp.json").read_text())["config"] == card.name
