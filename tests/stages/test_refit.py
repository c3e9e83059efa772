import json
from pathlib import Path

import torch

from cifar2 import models
from tests.conftest import SIZES


def refit():
    return json.loads(Path("metrics/refit.json").read_text())


def test_the_final_model_is_new_and_of_the_selected_configuration(trained, run_stage):
    run_stage("select_model.py")
    run_stage("refit.py")
    card, final = models.load(Path("data/models/final.safetensors"))
    selected = json.loads(Path("metrics/select.json").read_text())["selected"]
    assert card.configuration == refit()["config"] == selected
    assert refit()["n_train"] == SIZES["train"]
    assert 0 <= refit()["val_accuracy"] <= 1
    _, seeds = models.load(Path("data/models/selected/mlp.safetensors"))
    for network in seeds.values():
        assert not torch.equal(final["final"].fc["1"].weight, network.fc["1"].weight)


def test_it_reads_the_selected_hyperparameters_not_those_in_params(trained, run_stage):
    """So that a change to a configuration that lost does not train the final model again."""
    run_stage("select_model.py")
    run_stage("refit.py")
    before = Path("data/models/final.safetensors").read_bytes()
    for configuration in trained.params["configs"].values():
        configuration["lr"] *= 2
    trained.write_params()
    run_stage("refit.py")
    assert Path("data/models/final.safetensors").read_bytes() == before


def test_it_can_learn_from_the_validation_images_and_then_claims_no_validation_accuracy(trained, run_stage):
    trained.params["refit"]["include_val"] = True
    trained.write_params()
    run_stage("select_model.py")
    run_stage("refit.py")
    assert refit()["n_train"] == SIZES["train"] + SIZES["val"]
    assert refit()["val_accuracy"] is None


def test_a_final_model_that_diverges_is_one_line_and_nothing_is_written(trained, run_stage, fails_with):
    run_stage("select_model.py")
    select = json.loads(Path("metrics/select.json").read_text())
    select["configuration"]["lr"] = 1e30
    Path("metrics/select.json").write_text(json.dumps(select))
    before = trained.snapshot()
    assert "diverged at seed 100, epoch 1, step" in fails_with("refit.py")
    assert trained.snapshot() == before


def test_a_selection_that_is_none_is_one_line(trained, fails_with):
    Path("metrics/select.json").write_text('{"selected": "fine", "configuration": {"lr": "x"}}')
    assert "metrics/select.json is damaged" in fails_with("refit.py")
