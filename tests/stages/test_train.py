import csv
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cifar2 import models
from tests.conftest import ROOT

OUTPUTS = {"data/models/train/fine.safetensors", "metrics/train/fine.json", "metrics/curves/fine.csv"}


def metrics():
    return json.loads(Path("metrics/train/fine.json").read_text())


def test_it_writes_models_curves_and_metrics_of_every_seed(project, run_stage):
    run_stage("train.py", "fine")
    assert set(project.snapshot()) >= OUTPUTS
    card, networks = models.load(Path("data/models/train/fine.safetensors"))
    assert (card.configuration, card.n_l, card.classes) == ("fine", (3072, 8, 8, 2), ("airplane", "bird"))
    assert list(networks) == ["seed0", "seed1"]
    with Path("metrics/curves/fine.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["seed"], r["epoch"]) for r in rows] == [("0", "1"), ("0", "2"), ("1", "1"), ("1", "2")]
    found = metrics()
    assert found["status"] == "finished"
    assert found["n_seeds"] == 2
    assert found["n_parameters"] == sum(p.numel() for p in networks["seed0"].parameters())
    assert found["val_accuracy"] == pytest.approx(sum(float(r["val_accuracy"]) for r in rows[1::2]) / 2)


def test_a_second_run_writes_the_same_bytes(project, run_stage):
    run_stage("train.py", "fine")
    first = project.snapshot()
    run_stage("train.py", "fine")
    assert project.snapshot() == first


def test_it_never_opens_the_test_split(project, run_stage):
    Path("data/prepared/test.safetensors").unlink()
    run_stage("train.py", "fine")


def test_a_diverging_run_is_no_result_and_says_where(project, run_stage, capsys):
    project.params["configs"]["fine"]["lr"] = 1e30
    project.write_params()
    run_stage("train.py", "fine")
    assert "fine diverged at seed 0, epoch 1, step " in capsys.readouterr().out
    found = metrics()
    assert found["status"].startswith("diverged at seed 0, epoch 1, step ")
    assert found["val_accuracy"] is None
    assert found["train_accuracy"] is None
    assert set(project.snapshot()) >= OUTPUTS
    assert "nan" not in Path("metrics/curves/fine.csv").read_text()


def test_an_unknown_configuration_is_one_line_that_lists_the_known(project, fails_with):
    assert fails_with("train.py", "fin") == (
        "error: params.yaml: configs has no 'fin', only precise, fast, fine, balanced, smooth"
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
    failed = run_script(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert failed.returncode == 1
    assert failed.stderr == "error: data/models/train/fine.safetensors cannot be written: File too large\n"
    assert not list(Path("data/models/train").iterdir())
    assert not Path("metrics").exists()
