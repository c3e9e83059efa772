import csv
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cifar2 import params
from cifar2.dataset import splits
from cifar2.networks import classifier
from cifar2.training import hardware
from tests.conftest import N_FEATURES, ROOT

KINDS = {
    "fine": classifier.MyNetShape(n_l=(3072, 8, 8, 2), activation="relu"),
    "augmented": classifier.MyNetShape(n_l=(3072, 8, 8, 2), activation="relu", dropout=0.2),
    "convolutional": classifier.CnnShape(channels=(4, 8), n_classes=2, dropout=0.0),
    "linear": classifier.MyNetShape(n_l=(N_FEATURES, 2), activation="relu"),
}
OF_EACH_KIND = pytest.mark.parametrize("name", KINDS)


def outputs(name, root=""):
    return {
        f"{root}data/models/train/{name}.safetensors",
        f"{root}metrics/train/{name}.json",
        f"{root}metrics/curves/{name}.csv",
    }


def metrics(name="fine"):
    return json.loads(Path(f"metrics/train/{name}.json").read_text())


@OF_EACH_KIND
def test_it_writes_models_curves_and_metrics_of_every_seed(project, run_stage, name):
    before = set(project.snapshot())
    run_stage("train.py", name)
    assert set(project.snapshot()) - before == outputs(name)
    card, networks, accuracies = classifier.load(Path(f"data/models/train/{name}.safetensors"))
    assert (card.configuration, card.shape, card.classes) == (name, KINDS[name], ("airplane", "bird"))
    assert list(networks) == ["seed0", "seed1"]
    with Path(f"metrics/curves/{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {r["configuration"] for r in rows} == {name}
    assert [(r["seed"], r["epoch"]) for r in rows] == [("0", "1"), ("0", "2"), ("1", "1"), ("1", "2")]
    found = metrics(name)
    assert found["diverged"] is None
    assert found["n_seeds"] == 2
    assert found["kept_epoch"] == [2, 2]
    assert found["n_parameters"] == classifier.n_parameters(networks["seed0"])
    assert found["val_accuracy"] == pytest.approx(sum(float(r["val_accuracy"]) for r in rows[1::2]) / 2)
    assert accuracies == {key: found[key] for key in ("val_accuracy", "train_accuracy")}


@OF_EACH_KIND
def test_the_accuracies_are_those_of_the_models(project, run_stage, name):
    run_stage("train.py", name)
    card, networks, _ = classifier.load(Path(f"data/models/train/{name}.safetensors"))
    for part in ("val", "train"):
        split = splits.load(Path("data", project.params["configs"][name]["input"], f"{part}.safetensors"))
        x = split.images if card.features else splits.normalise(split.images, card.mean, card.std)
        right = [
            (classifier.logits(network, x, card.flip_average).argmax(1) == split.labels).double().mean().item()
            for network in networks.values()
        ]
        assert metrics(name)[f"{part}_accuracy"] == pytest.approx(sum(right) / 2)


def test_the_card_says_what_makes_features_and_whether_to_average(project, run_stage):
    for name in ("linear", "augmented"):
        run_stage("train.py", name)
    linear, augmented = (
        classifier.load(Path(f"data/models/train/{n}.safetensors"))[0] for n in ("linear", "augmented")
    )
    assert linear.features == params.Features(**project.params["features"])
    assert not linear.flip_average
    assert augmented.features is None
    assert augmented.flip_average


def test_what_learns_from_features_opens_no_pictures(project, run_stage):
    shutil.rmtree("data/prepared")
    run_stage("train.py", "linear")


def test_what_learns_from_pictures_opens_no_features(project, run_stage):
    shutil.rmtree("data/features")
    run_stage("train.py", "convolutional")


@pytest.mark.parametrize(("name", "threads"), [("fine", []), ("linear", []), ("convolutional", [3])])
def test_convolutions_alone_have_the_number_of_threads_of_the_experiment(
    project, run_stage, monkeypatch, name, threads
):
    project.params["train"]["threads"] = 3
    project.write_params()
    fixed = []
    monkeypatch.setattr(hardware, "fix_convolutions", fixed.append)
    run_stage("train.py", name)
    assert fixed == threads


def test_early_stopping_is_told_in_the_metrics(project, run_stage):
    project.params["configs"]["fine"] |= {"early_stopping": 1, "epochs": 20, "lr": 0.3}
    project.write_params()
    run_stage("train.py", "fine")
    with Path("metrics/curves/fine.csv").open() as file:
        rows = list(csv.DictReader(file))
    best = [min((r for r in rows if r["seed"] == seed), key=lambda r: float(r["val_loss"])) for seed in "01"]
    assert len(rows) < 40
    assert metrics()["kept_epoch"] == [int(r["epoch"]) for r in best]
    assert metrics()["val_loss"] == pytest.approx(sum(float(r["val_loss"]) for r in best) / 2)


def test_what_is_under_beyond_is_trained_likewise_and_written_there(project, run_stage):
    before = set(project.snapshot())
    run_stage("train.py", "without_flip")
    written = set(project.snapshot()) - before
    assert written == outputs("without_flip", "beyond/")
    # The same hyperparameters under another name are the same training.
    project.params["configs"]["same"] = project.params["beyond"]["without_flip"]
    project.write_params()
    run_stage("train.py", "same")
    beyond, here = (Path(root, f"metrics/train/{n}.json") for root, n in (("beyond", "without_flip"), ("", "same")))
    assert beyond.read_bytes() == here.read_bytes()


@OF_EACH_KIND
def test_a_second_run_writes_the_same_bytes(project, run_stage, name):
    run_stage("train.py", name)
    first = project.snapshot()
    run_stage("train.py", name)
    assert project.snapshot() == first


@pytest.mark.parametrize("name", [*KINDS, "without_flip"])
def test_it_never_opens_the_test_split(project, run_stage, name):
    Path("data/prepared/test.safetensors").unlink()
    Path("data/prepared/near_duplicates.csv").unlink()
    run_stage("train.py", name)


def test_a_diverging_run_is_no_result_and_says_where(project, run_stage, capsys):
    project.params["configs"]["fine"]["lr"] = 1e30
    project.write_params()
    run_stage("train.py", "fine")
    assert "fine diverged at seed 0, epoch 1, step " in capsys.readouterr().out
    found = metrics()
    assert found["diverged"].startswith("seed 0, epoch 1, step ")
    assert found["val_accuracy"] is None
    assert found["train_accuracy"] is None
    assert set(project.snapshot()) >= outputs("fine")
    assert "nan" not in Path("metrics/curves/fine.csv").read_text()


def test_an_unknown_configuration_is_one_line_that_lists_the_known(project, fails_with):
    assert fails_with("train.py", "fin") == (
        "error: params.yaml: neither configs nor beyond has 'fin', only precise, fast, fine, balanced, smooth, "
        "augmented, linear, convolutional, without_flip"
    )


@pytest.mark.parametrize("damage", [lambda c: c[:-7], lambda c: b"\xff" * 9 + c[9:], lambda c: b""])
def test_damaged_data_is_one_line_and_nothing_is_written(project, fails_with, damage):
    path = Path("data/prepared/val.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    before = project.snapshot()
    assert "data/prepared/val.safetensors is damaged" in fails_with("train.py", "fine")
    assert project.snapshot() == before


def run_script(**options):
    return subprocess.run(
        [sys.executable, str(ROOT / "stages/train.py"), "fine"], capture_output=True, text=True, check=False, **options
    )


def test_as_a_script_it_needs_no_dvc_and_a_fault_is_exit_code_1(project):
    assert run_script().returncode == 0
    Path("params.yaml").write_text("surprise: 1")
    failed = run_script()
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: params.yaml: ")
    assert failed.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="limits on file sizes are POSIX's")
def test_a_disk_that_fills_up_is_one_line_and_no_half_file(project):
    """A limit of 100 kB a file: the model does not fit."""
    limit = 100_000
    project.params["checkpoints"]["every"] = 100
    project.write_params()
    failed = run_script(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert failed.returncode == 1
    assert failed.stderr == "error: data/models/train/fine.safetensors cannot be written: File too large\n"
    assert not list(Path("data/models/train").iterdir())
    assert not Path("metrics").exists()
