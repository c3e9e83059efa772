import json
import shutil
from pathlib import Path

import pytest
import torch

from cifar2.networks import classifier
from cifar2.training import hardware
from tests.stages.test_select_model import wins

OF_EACH_KIND = pytest.mark.parametrize("name", ["fine", "augmented", "convolutional", "linear"])


def refit():
    return json.loads(Path("metrics/refit.json").read_text())


@OF_EACH_KIND
def test_the_final_model_is_new_and_of_the_best_configuration_of_all(trained, run_stage, name):
    wins(name)
    run_stage("select_model.py")
    run_stage("refit.py")
    card, final, accuracies = classifier.load(Path("data/models/final.safetensors"))
    assert card.configuration == refit()["config"] == name
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


@OF_EACH_KIND
def test_it_is_trained_as_the_configuration_was_but_for_the_seed(trained, run_stage, name):
    """With a seed of train.seeds it would be that seed's model."""
    wins(name)
    run_stage("select_model.py")
    trained.params["train"]["seeds"], trained.params["refit"]["seed"] = [7], 1
    trained.write_params()
    run_stage("refit.py")
    _, final, _ = classifier.load(Path("data/models/final.safetensors"))
    _, seeds, _ = classifier.load(Path(f"data/models/train/{name}.safetensors"))
    pairs = zip(final["final"].state_dict().values(), seeds["seed1"].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_what_learns_from_features_opens_no_pictures(trained, run_stage):
    wins("linear")
    run_stage("select_model.py")
    shutil.rmtree("data/prepared")
    run_stage("refit.py")


@pytest.mark.parametrize("name", ["fine", "convolutional"])
def test_it_never_opens_the_test_split(trained, run_stage, name):
    wins(name)
    run_stage("select_model.py")
    for path in ("test.safetensors", "near_duplicates.csv"):
        Path("data/prepared", path).unlink()
    run_stage("refit.py")


@pytest.mark.parametrize(("name", "threads"), [("fine", []), ("linear", []), ("convolutional", [3])])
def test_convolutions_alone_have_the_number_of_threads_of_the_experiment(
    trained, run_stage, monkeypatch, name, threads
):
    wins(name)
    run_stage("select_model.py")
    trained.params["train"]["threads"] = 3
    trained.write_params()
    fixed = []
    monkeypatch.setattr(hardware, "fix_convolutions", fixed.append)
    run_stage("refit.py")
    assert fixed == threads


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


@OF_EACH_KIND
def test_it_can_learn_from_the_validation_images_and_then_claims_no_validation_accuracy(trained, run_stage, name):
    wins(name)
    trained.params["refit"]["include_val"] = True
    trained.write_params()
    run_stage("select_model.py")
    run_stage("refit.py")
    assert refit()["trained_on"] == ["train", "val"]
    assert refit()["val_accuracy"] is None
    assert classifier.load(Path("data/models/final.safetensors"))[2]["val_accuracy"] is None


def stopping_early(trained, run_stage):
    wins("fine")
    trained.params["configs"]["fine"] |= {"early_stopping": 1, "epochs": 20, "lr": 0.3}
    trained.write_params()
    run_stage("select_model.py")


def test_a_final_model_that_stopped_early_says_which_epoch_was_kept(trained, run_stage):
    stopping_early(trained, run_stage)
    run_stage("refit.py")
    losses = [float(line.split(",")[5]) for line in Path("metrics/refit_curve.csv").read_text().splitlines()[1:]]
    assert len(losses) < 20
    assert refit()["kept_epoch"] == [1 + losses.index(min(losses))]


def test_learning_from_the_validation_images_leaves_none_to_stop_early_by(trained, run_stage, fails_with):
    stopping_early(trained, run_stage)
    trained.params["refit"]["include_val"] = True
    trained.write_params()
    before = trained.snapshot()
    message = fails_with("refit.py")
    assert message == "error: params.yaml: refit.include_val leaves no validation set to stop fine early by"
    assert trained.snapshot() == before


def test_a_final_model_that_diverges_is_one_line_and_nothing_is_written(trained, run_stage, fails_with):
    run_stage("select_model.py")
    selected = json.loads(Path("data/models/selected.json").read_text())
    selected["configuration"]["lr"] = 1e30
    Path("data/models/selected.json").write_text(json.dumps(selected))
    before = trained.snapshot()
    assert "diverged at seed 100, epoch 1, step" in fails_with("refit.py")
    assert trained.snapshot() == before


@pytest.mark.parametrize("configuration", [{"lr": "x"}, {"model": "svm"}, 3])
def test_a_selection_that_is_none_is_one_line(trained, fails_with, configuration):
    Path("data/models/selected.json").write_text(json.dumps({"name": "fine", "configuration": configuration}))
    assert "data/models/selected.json is damaged" in fails_with("refit.py")
