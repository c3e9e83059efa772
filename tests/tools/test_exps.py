"""Experiments and training runs in tables that fit a terminal."""

import json
import os
import time
from pathlib import Path

import pytest

from cifar2.training.progress import Progress
from tests.clone import ROOT, run
from tests.training.test_progress import EPOCH
from tools import exps, watch

CONFIGURATIONS = ["precise", "fast", "fine", "balanced", "smooth", "augmented", "linear"]
NAMES = ["fine-lr-0.02-momentum-0.9-cosine", "augmented-longer-with-shift-3-and-dropout"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository with the pipeline's metrics, a commit and two experiments."""
    folder = tmp_path_factory.mktemp("experiments")

    def write(path, **values):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(values))

    for name in CONFIGURATIONS:
        write(f"metrics/train/{name}.json", gap=0.1, val_accuracy=0.82958, val_accuracy_se=0.01, val_loss=0.5)
    write("metrics/evaluate/final.json", config="linear", test_accuracy=0.9765, val_accuracy=0.82958)
    (folder / "dvc.yaml").write_text(
        f"metrics: {[str(p.relative_to(folder)) for p in sorted(folder.rglob('metrics/*/*.json'))]}"
    )
    (folder / "params.yaml").write_text("train: {epochs: 30}\n")
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "--quiet", "-m", "results")
    for i, name in enumerate(NAMES):
        write("metrics/train/fine.json", val_accuracy=0.9 + i / 100)
        run(folder, "dvc", "exp", "save", "--name", name)
    return folder


def show(folder, *options, **environment):
    """The output of `make exps` into a pipe."""
    return run(folder, "python", str(ROOT / "tools/exps.py"), *options, **environment).stdout


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "width"), [({"COLUMNS": "80"}, 80), ({"COLUMNS": ""}, 120)])
def test_experiments_fit_the_terminal(repository, environment, width):
    out = show(repository, **environment)
    assert max(map(len, out.splitlines())) <= width
    assert "…" not in out
    headers = [line.split() for line in out.splitlines() if line.startswith("experiment ")]
    assert [name for header in headers for name in header if name != "experiment"] == [
        "created",
        "selected",
        *sorted(CONFIGURATIONS),
    ]
    rows = [line.split() for line in out.splitlines() if NAMES[1] in line]
    assert rows[0][2] == "linear"
    assert "0.9765" not in out, "experiments are compared on the validation set"
    assert "0.9100" in {cell for row in rows for cell in row}


@pytest.mark.slow
def test_experiments_of_other_commits_are_shown_on_request(repository):
    run(repository, "git", "commit", "--quiet", "--allow-empty", "-m", "later")
    try:
        assert NAMES[0] not in show(repository)
        assert NAMES[0] in show(repository, "--all-commits")
    finally:
        run(repository, "git", "reset", "--quiet", "--soft", "HEAD~1")


def test_a_queued_experiment_has_its_state_and_dashes():
    queued = {"revs": [{"name": "later", "rev": "b" * 40, "data": {"metrics": {}}}], "executor": {"state": "queued"}}
    metrics = {"metrics/train/fine.json": {"data": {"val_accuracy": 0.5}}, "metrics/refit.json": {"error": {}}}
    data = {"timestamp": "2026-01-02T03:04:05", "metrics": metrics}
    shown = [{"name": None, "rev": "a" * 40, "data": data, "experiments": [queued]}]
    header, commit, experiment = exps.compared(shown, "2026-01-03")
    assert header == ["experiment", "created", "state", "selected", "fine"]
    assert commit == [9 * "a", "2026-01-02", "", "-", "0.5000"]
    assert experiment == ["  later", "", "queued", "-", "-"]
    assert exps.compared(shown, "2026-01-02")[1][1] == "03:04"


def test_a_wide_table_continues_below_with_its_first_column():
    rows = [["name", "a", "b", "c"], ["first", "1", "2", "3"]]
    assert exps.table(rows, 100) == "name   a  b  c\nfirst  1  2  3"
    assert exps.table(rows, 11) == "name   a  b\nfirst  1  2\n\nname   c\nfirst  3"


def test_training_runs_have_one_line_per_seed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("without_label_smoothing", 4) as one, Progress("final fine", 1) as other:
        for seed, epoch in ((0, 1), (0, 2), (1, 1)):
            one.show(EPOCH._replace(seed=seed, epoch=epoch))
        other.show(EPOCH._replace(val_loss=None, val_accuracy=None))
        capsys.readouterr()
        watch.main()
    out = capsys.readouterr().out
    header, *rows = [line.split() for line in out.splitlines()]
    assert header[:7] == ["configuration", "seed", "epoch", "train_loss", "train_acc", "val_loss", "val_acc"]
    assert [row[:7] for row in rows] == [
        ["final-fine", "0", "3", "0.5123", "0.7500", "-", "-"],
        ["without_label_smoothing", "0", "2", "0.5123", "0.7500", "0.6000", "0.7000"],
        ["without_label_smoothing", "1", "1", "0.5123", "0.7500", "0.6000", "0.7000"],
    ]
    assert max(map(len, out.splitlines())) <= 120


def test_an_incomplete_last_line_is_ignored(tmp_path):
    curve = tmp_path / "fine/plots/metrics/val_loss/seed0.tsv"
    curve.parent.mkdir(parents=True)
    curve.write_text("step\tseed0\n9\t0.25\n10\t0.")
    os.utime(curve, (100, 100))
    assert watch.training(tmp_path, 107)[1] == ["fine", "0", "9", "-", "-", "0.2500", "-", "7 s ago"]


def test_watch_reports_that_nothing_is_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    watch.main()
    assert capsys.readouterr().out == "nothing is training\n"


def test_watch_fits_80_columns():
    names = [(name, str(seed)) for name in CONFIGURATIONS for seed in range(3)]
    header = watch.training(Path("nowhere"), time.time())[0]
    rows = [[*run, "60", "0.1234", "0.1234", "0.1234", "0.1234", "100 s ago"] for run in names]
    assert max(map(len, exps.table([header, *rows], 80).splitlines())) <= 80
    assert "\n\n" not in exps.table([header, *rows], 80), "in one block"
