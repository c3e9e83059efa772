import json
from pathlib import Path

import pytest

from cifar2 import params
from cifar2.dataset import splits as dataset
from cifar2.sweep import trial


def trials(**configuration):
    everything = params.load()
    splits = [dataset.load(Path(f"data/prepared/{name}.safetensors")) for name in ("train", "val")]
    return trial.Trials(everything, *splits, {"key": everything.configs["augmented"].model_copy(update=configuration)})


def test_its_outcome_is_what_stage_train_finds(project, run_stage):
    run_stage("train.py", "augmented")
    found = json.loads(Path("metrics/train/augmented.json").read_text())
    *_, last = trials().run("key")
    assert last.done
    assert last.score == found["val_accuracy"]
    assert last.outcome == {name: found.get(name) for name in trial.OUTCOME}


def test_it_reports_each_epoch_of_its_first_seed_and_its_end(project):
    reports = list(trials().run("key"))
    assert [report.done for report in reports] == [False, False, True]
    assert [report.outcome["stopped"] for report in reports] == [1, 2, None]
    for report in reports:
        assert tuple(report.outcome) == trial.OUTCOME
        assert report.score == report.outcome["val_accuracy"]
    assert reports[0].outcome["val_accuracy_se"] is None


def test_one_that_diverges_says_where_and_has_no_numbers(project):
    *_, last = trials(lr=1e30).run("key")
    assert last.done
    assert last.score == 0
    assert last.outcome.pop("diverged").startswith("seed 0, epoch 1")
    assert set(last.outcome.values()) == {None}


@pytest.mark.parametrize("name", ["linear", "convolutional"])
def test_other_networks_are_tried_as_well(project, name):
    everything = params.load()
    configuration = everything.configs[name]
    splits = [dataset.load(Path("data", configuration.input, f"{part}.safetensors")) for part in ("train", "val")]
    *_, last = trial.Trials(everything, *splits, {"key": configuration}).run("key")
    assert last.done
    assert 0 < last.score <= 1
