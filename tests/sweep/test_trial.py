import json
from pathlib import Path

import pytest

from cifar2 import params
from cifar2.dataset import splits
from cifar2.sweep import trial


def run(name="augmented", **changes):
    """The reports of a trial of the configuration ``name`` with changes."""
    all_params = params.load()
    configuration = all_params.configs[name].model_copy(update=changes)
    sets = [splits.load(Path("data", configuration.input, f"{split}.safetensors")) for split in ("train", "val")]
    return list(trial.Trials(all_params, *sets, {"key": configuration}).run("key"))


@pytest.mark.parametrize("name", ["augmented", "linear", "convolutional"])
def test_outcome_is_the_result_of_stage_train(project, run_stage, name):
    run_stage("train.py", name)
    metrics = json.loads(Path(f"metrics/train/{name}.json").read_text())
    *_, last = run(name)
    assert last.done
    assert last.score == metrics["val_accuracy"]
    assert last.outcome == {key: metrics.get(key) for key in trial.OUTCOME}


def test_reports_are_of_the_epochs_of_the_first_seed_and_the_end(project):
    reports = run()
    assert [report.done for report in reports] == [False, False, True]
    assert [report.outcome["stopped"] for report in reports] == [1, 2, None]
    for report in reports:
        assert tuple(report.outcome) == trial.OUTCOME
        assert report.score == report.outcome["val_accuracy"]
    assert reports[0].outcome["val_accuracy_se"] is None


def test_diverged_trial_has_a_reason_and_no_numbers(project):
    *_, last = run(lr=1e30)
    assert last.done
    assert last.score == 0
    assert last.outcome.pop("diverged").startswith("seed 0, epoch 1")
    assert set(last.outcome.values()) == {None}
