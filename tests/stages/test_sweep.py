import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cifar2.sweep import cluster
from tests.clone import read
from tests.conftest import ROOT, table

TABLE = "metrics/sweep.csv"


@pytest.fixture
def ran(monkeypatch):
    """The keys of the trials that ran: without Ray, one after another, the last one first."""
    ran_keys = []

    def run(keys, trial, resources, asha, finished, best):
        for key in reversed(keys):
            *_, last = trial(key)
            finished(key, last.outcome)
            ran_keys.append(key)

    monkeypatch.setattr(cluster, "run", run)
    return ran_keys


def again(project, ran, run_stage, **changes):
    """The number of trials that run after ``changes`` to the sweep."""
    before = len(ran)
    project.params["sweep"] |= changes
    project.write_params()
    run_stage("sweep.py")
    return len(ran) - before


@pytest.mark.figures
def test_outputs_are_a_table_and_two_figures(project, run_stage, ran):
    before = set(project.snapshot())
    again(project, ran, run_stage, trials=8, space={"lr": {"log_uniform": [1e-4, 1.0]}})
    new = {name for name in set(project.snapshot()) - before if not name.startswith(".sweep")}
    assert new == {"metrics/sweep.csv", "metrics/figures/sweep.png", "metrics/figures/sweep_by_parameter.png"}
    rows = table(TABLE)
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 9)]
    order = [(-float(row["val_accuracy"]), float(row["val_loss"])) for row in rows]
    assert order == sorted(order)
    assert len(set(order)) > 1
    assert sorted(int(row["trial"]) for row in rows) == list(range(8))


def test_models_are_not_kept(project, run_stage, ran):
    run_stage("sweep.py")
    assert not Path("data/models").exists()
    assert max(path.stat().st_size for path in Path(".sweep").iterdir()) < 1000


def test_outputs_do_not_depend_on_the_order_of_trials(project, run_stage, ran, monkeypatch):
    run_stage("sweep.py")
    before = {name: content for name, content in project.snapshot().items() if name.startswith("metrics")}
    shutil.rmtree(".sweep")
    reverse = cluster.run
    monkeypatch.setattr(cluster, "run", lambda keys, *rest: reverse(list(keys)[::-1], *rest))
    run_stage("sweep.py")
    assert ran == [*ran[:3], *ran[:3][::-1]]
    assert {name: project.snapshot()[name] for name in before} == before


def test_finished_trials_do_not_run_again(project, run_stage, ran):
    run_stage("sweep.py")
    assert again(project, ran, run_stage) == 0
    assert again(project, ran, run_stage, trials=5) == 2
    assert again(project, ran, run_stage, trials=4) == 0
    assert len(table(TABLE)) == 4


def test_resumed_sweep_starts_from_the_best_finished_trial(project, run_stage, monkeypatch, ran):
    again(project, ran, run_stage, space={"lr": {"grid": [1e30, 1e-4, 0.1]}}, trials=3)
    best = max(float(row["val_accuracy"] or 0) for row in table(TABLE))
    given = []
    run = cluster.run
    monkeypatch.setattr(cluster, "run", lambda *arguments: (given.append(arguments[-1]), run(*arguments)))
    again(project, ran, run_stage, space={"lr": {"grid": [1e30, 1e-4, 0.1, 1e-5]}}, trials=4)
    assert given == [best]
    assert best > 0


def finish(followed, score, stopped=None):
    result = {"score": score, "outcome": {"stopped": stopped}}
    followed.on_trial_complete(0, [], SimpleNamespace(config={"key": str(score)}, last_result=result))


def test_best_accuracy_shown_is_that_of_the_first_row():
    shown = []
    callback = cluster._Finished(lambda *_: None, lambda *progress: shown.append(progress), 0.8)
    finish(callback, 0.7)
    finish(callback, 0.9, stopped=5)
    finish(callback, 0.85)
    assert shown == [
        (n, f"best validation accuracy {best}") for n, best in ((1, "0.8000"), (2, "0.8000"), (3, "0.8500"))
    ]


@pytest.mark.parametrize("change", [{"seed": 1}, {"seeds": [1]}, {"asha": {"grace_epochs": 1, "reduction_factor": 2}}])
def test_other_settings_of_the_sweep_are_other_trials(project, run_stage, ran, change):
    run_stage("sweep.py")
    assert again(project, ran, run_stage, **change) == 3


def test_other_data_or_training_parameters_are_other_trials(project, run_stage, ran):
    run_stage("sweep.py")
    project.params["train"]["batch_size"] = 8
    assert again(project, ran, run_stage) == 3
    shutil.copy("data/prepared/test.safetensors", "data/prepared/val.safetensors")
    assert again(project, ran, run_stage) == 3


def test_interrupted_trial_leaves_the_finished_ones(project, run_stage, ran, monkeypatch):
    run = cluster.run

    def killed(keys, *rest):
        run(list(keys)[:2], *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "run", killed)
    with pytest.raises(SystemExit):
        run_stage("sweep.py")
    assert not Path("metrics").exists()
    monkeypatch.setattr(cluster, "run", run)
    assert again(project, ran, run_stage) == 1


def test_equal_points_are_one_trial(project, run_stage, ran):
    assert again(project, ran, run_stage, space={"lr": {"grid": [0.1, 0.2]}}, trials=5) == 2
    assert [row["trial"] for row in sorted(table(TABLE), key=lambda row: row["trial"])] == ["0", "1"]


def test_diverged_trial_is_last_in_the_table(project, run_stage, ran):
    again(project, ran, run_stage, space={"lr": {"grid": [1e30, 0.1]}})
    first, last = table(TABLE)
    assert (first["lr"], first["diverged"]) == ("0.1", "")
    assert last["diverged"].startswith("seed 0, epoch 1")
    assert last["val_accuracy"] == ""


def test_sweep_in_which_all_diverge_is_one_line(project, fails_with, ran):
    project.params["sweep"]["space"] = {"lr": {"grid": [1e30, 1e31]}}
    project.write_params()
    assert "every trial diverged" in fails_with("sweep.py")
    assert not Path("metrics").exists()


def test_stopped_trial_is_after_all_finished_ones(project, run_stage, ran):
    run_stage("sweep.py")
    worst = table(TABLE)[-1]
    path = next(
        p for p in Path(".sweep").iterdir() if json.loads(p.read_text())["val_loss"] == float(worst["val_loss"])
    )
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stopped": 1, "val_accuracy": 1.0}))
    run_stage("sweep.py")
    assert [row["stopped"] for row in table(TABLE)] == ["", "", "1"]
    assert table(TABLE)[2]["trial"] == worst["trial"]


def test_corrupted_outcome_is_named(project, run_stage, fails_with, ran):
    run_stage("sweep.py")
    path = next(Path(".sweep").iterdir())
    path.write_text(path.read_text()[:50])
    assert str(path) in fails_with("sweep.py")


def test_sweep_may_start_from_a_configuration_on_features(project, run_stage, ran):
    assert again(project, ran, run_stage, base="linear", space={"lr": {"uniform": [0.01, 0.1]}}) == 3


def test_missing_ray_is_one_line_that_names_the_target(project, fails_with, monkeypatch):
    monkeypatch.setitem(sys.modules, "cifar2.sweep.cluster", None)
    monkeypatch.delattr("cifar2.sweep.cluster")
    assert "`make install-sweep`" in fails_with("sweep.py")


def test_table_of_the_project_is_of_its_own_sweep():
    rows = table(ROOT / TABLE)
    document = read(ROOT / "params.yaml")["sweep"]
    assert len(rows) == document["trials"]
    assert set(document["space"]) < set(rows[0])
