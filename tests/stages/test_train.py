import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cifar2 import params
from cifar2.dataset import splits
from cifar2.dataset.examples import examples
from cifar2.evaluation.scores import score
from cifar2.networks import classifier
from tests.conftest import N_FEATURES, ROOT, table

# The units of the layers of a MyNet, by configuration.
KINDS = {"fine": (3072, 8, 8, 2), "augmented": (3072, 8, 8, 2), "convolutional": (), "linear": (N_FEATURES, 2)}
EACH_KIND = pytest.mark.parametrize("name", KINDS)


def outputs(name, root=""):
    return {
        f"{root}data/models/train/{name}.safetensors",
        f"{root}data/validated/{name}.safetensors",
        f"{root}metrics/train/{name}.json",
        f"{root}metrics/curves/{name}.csv",
    }


def metrics(name="fine", root=""):
    return json.loads(Path(root, f"metrics/train/{name}.json").read_text())


def models(name="fine"):
    return classifier.load(Path(f"data/models/train/{name}.safetensors"))


@EACH_KIND
def test_outputs_are_models_curves_and_metrics_of_all_seeds(project, run_stage, name):
    before = set(project.snapshot())
    run_stage("train.py", name)
    assert set(project.snapshot()) - before == outputs(name)
    card, networks, accuracies = models(name)
    configuration = params.load().configs[name]
    assert (card.name, card.configuration, card.n_l) == (name, configuration, KINDS[name])
    assert card.classes == ("airplane", "bird")
    assert card.features == (params.load().features if name == "linear" else None)
    assert list(networks) == ["seed0", "seed1"]
    rows = table(f"metrics/curves/{name}.csv")
    assert {row["configuration"] for row in rows} == {name}
    assert [(row["seed"], row["epoch"]) for row in rows] == [("0", "1"), ("0", "2"), ("1", "1"), ("1", "2")]
    results = metrics(name)
    assert (results["diverged"], results["n_seeds"], results["kept_epoch"]) == (None, 2, [2, 2])
    assert results["n_parameters"] == classifier.n_parameters(networks["seed0"])
    assert results["val_accuracy"] == pytest.approx(sum(float(row["val_accuracy"]) for row in rows[1::2]) / 2)
    assert accuracies == {key: results[key] for key in ("val_accuracy", "train_accuracy")}
    for split in ("train", "val"):
        data = examples(splits.load(Path(f"data/{configuration.input}/{split}.safetensors")), card.mean, card.std)
        scores = [score(network, data, configuration.flip_average) for network in networks.values()]
        assert results[f"{split}_accuracy"] == pytest.approx((scores[0].accuracy + scores[1].accuracy) / 2)


def test_each_method_of_gradients_gives_the_same_result(project, run_stage):
    results = []
    for gradients in ("in_place", "backpropagation", "autograd"):
        project.params["train"]["gradients"] = gradients
        project.write_params()
        run_stage("train.py", "augmented")
        results.append((models("augmented")[1], metrics("augmented")))
    (networks, numbers), *others = results
    for other_networks, other_numbers in others:
        for seed, network in networks.items():
            weights, other_weights = (n[seed].state_dict() for n in (networks, other_networks))
            torch.testing.assert_close(weights, other_weights, rtol=1e-4, atol=1e-5)
            assert not torch.equal(network.fc["1"].weight, other_networks[seed].fc["1"].weight), "other arithmetic"
        assert other_numbers["val_accuracy"] == numbers["val_accuracy"]
        assert other_numbers["val_loss"] == pytest.approx(numbers["val_loss"], rel=1e-4)


@pytest.mark.parametrize("name", [*KINDS, "without_flip"])
def test_training_reads_only_the_input_of_its_configuration(project, run_stage, name):
    configs = project.params["configs"]
    folder = Path("data", configs.get(name, configs["augmented"])["input"])
    inputs = {folder / f"{split}.safetensors" for split in ("train", "val")}
    for path in set(Path("data").glob("*/*")) - inputs:
        path.unlink()
    run_stage("train.py", name)


def test_metrics_of_early_stopping_are_of_the_best_epoch(project, run_stage):
    project.params["configs"]["fine"] |= {"early_stopping": 1, "epochs": 20, "lr": 0.3}
    project.write_params()
    run_stage("train.py", "fine")
    rows = table("metrics/curves/fine.csv")
    best = [min((row for row in rows if row["seed"] == seed), key=lambda row: float(row["val_loss"])) for seed in "01"]
    assert len(rows) < 40
    assert metrics()["kept_epoch"] == [int(row["epoch"]) for row in best]
    assert metrics()["val_loss"] == pytest.approx(sum(float(row["val_loss"]) for row in best) / 2)


def test_extended_configuration_is_trained_in_its_own_folder(project, run_stage):
    before = set(project.snapshot())
    run_stage("train.py", "without_flip")
    assert set(project.snapshot()) - before == outputs("without_flip", "extended/")
    # The same hyperparameters with another name give the same result.
    project.params["configs"]["same"] = project.params["configs"]["augmented"] | {"flip": False}
    project.write_params()
    run_stage("train.py", "same")
    assert metrics("without_flip", "extended") == metrics("same")


def test_diverged_configuration_has_a_reason_and_no_numbers(project, run_stage, capsys):
    project.params["configs"]["fine"]["lr"] = 1e30
    project.write_params()
    run_stage("train.py", "fine")
    assert "fine diverged at seed 0, epoch 1, step " in capsys.readouterr().out
    results = metrics()
    assert results.pop("diverged").startswith("seed 0, epoch 1, step ")
    assert results.pop("n_seeds") == 2
    assert results.pop("n_parameters") > 0
    assert set(results.values()) == {None}
    assert set(project.snapshot()) >= outputs("fine")
    assert "nan" not in Path("metrics/curves/fine.csv").read_text()


def test_unknown_configuration_is_one_line_with_the_known_ones(project, fails_with):
    assert fails_with("train.py", "fin") == (
        "error: params.yaml: neither configs nor extended has 'fin', only precise, fast, fine, balanced, smooth, "
        "augmented, linear, convolutional, without_flip, longer"
    )


@pytest.mark.slow
def test_script_needs_no_dvc_and_an_error_is_exit_code_1(project):
    command = [sys.executable, str(ROOT / "stages/train.py"), "fine"]
    subprocess.run(command, capture_output=True, check=True)
    Path("params.yaml").write_text("surprise: 1")
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: params.yaml: ")
    assert failed.stderr.count("\n") == 1
