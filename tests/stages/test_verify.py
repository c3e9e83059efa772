import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cifar2 import gradcheck, inplace, losses, mynet, verification
from cifar2.dataset import splits
from cifar2.sgd import SGD
from cifar2.verification import check_all
from tests import test_gradcheck, test_sgdcheck
from tests.conftest import random_split

GATE = Path("data/verified.json")
LINE = re.compile(r"error: verification failed in (\d+) of its checks; (.+): error (\S+) against (.+), tolerance (\S+)")


def metrics():
    return json.loads(Path("metrics/verify.json").read_text())


@pytest.fixture
def fails(project, fails_with):
    """Run the stage, which must fail; returns the number of failed checks, and the name and reference of the first."""

    def run():
        n, name, error, reference, tolerance = LINE.fullmatch(fails_with("verify.py")).groups()
        assert not float(error) <= float(tolerance)
        assert metrics()["passed"] is False
        assert not GATE.exists()
        return int(n), name, reference

    return run


@pytest.mark.figures
def test_passed_checks_open_the_gate(project, run_stage):
    run_stage("verify.py")
    assert metrics()["passed"] is True
    assert metrics()["sgd_vs_torch_max_abs_diff"] == 0
    assert 0 < metrics()["backprop_vs_autograd_max_rel_error"] < 1e-12
    assert 0 < metrics()["backprop_vs_finite_difference_max_rel_error"] < 1e-7
    assert 0 < metrics()["inplace_vs_backprop_and_sgd_max_rel_diff"] < 1e-12
    assert metrics()["n_checks"] == len(json.loads(GATE.read_text())["passed"])
    assert Path("metrics/figures/gradient_errors.png").exists()


def test_images_of_every_class_are_checked(project, run_stage, monkeypatch):
    """Your own images are in the order of their classes."""
    split = random_split(700, 0, ("a", "b", "c"))
    splits.save(Path("data/prepared/train.safetensors"), replace(split, labels=split.labels.sort().values))
    checked = []
    monkeypatch.setattr(verification, "check_all", lambda x, y, *others: checked.append(y) or check_all(x, y, *others))
    run_stage("verify.py")
    assert checked[0].bincount().min() > 100


def test_gate_names_all_checks_and_has_no_number(project, run_stage):
    run_stage("verify.py")
    passed = json.loads(GATE.read_text())["passed"]
    assert {
        "5-3-1 relu, identity output, squared_error, batch 4",
        "3072-8-8-2 relu, identity output, cross_entropy, batch 32",
        "SGD momentum and weight decay, float64",
        "in place, nesterov and weight decay",
        "in place, dropout and label smoothing",
    } < set(passed)
    project.params["verify"]["seed"] += 1
    project.write_params()
    before = GATE.read_bytes()
    run_stage("verify.py")
    assert GATE.read_bytes() == before


def test_largest_errors_are_listed_by_layer_and_activation(project, run_stage):
    run_stage("verify.py")
    rows = metrics()["by_layer"]
    assert [(row["layer"], row["activation"]) for row in rows] == sorted(
        (layer, activation) for layer in (1, 2) for activation in project.params["verify"]["activations"]
    )
    for method in gradcheck.Errors._fields:
        # The check on images has no layers, and may have the largest error.
        assert 0 < max(row[method] for row in rows) <= metrics()[f"backprop_vs_{method}_max_rel_error"]


@pytest.mark.parametrize("wrong", list(test_gradcheck.WRONG.values())[:3])
def test_wrong_backpropagation_fails_the_stage(fails, monkeypatch, wrong):
    monkeypatch.setattr(gradcheck, "backpropagation", wrong)
    n, name, reference = fails()
    assert n > 2
    assert "batch" in name
    assert reference == "autograd"


def test_errors_by_layer_show_the_layer_of_a_fault(fails, monkeypatch):
    monkeypatch.setattr(gradcheck, "backpropagation", test_gradcheck.WRONG["wrong sign"])
    fails()
    for row in metrics()["by_layer"]:
        assert (row["autograd"] > 1e-6) == (row["layer"] == 1)


def test_wrong_velocity_fails_the_stage(fails, monkeypatch):
    monkeypatch.setattr(SGD, "step", test_sgdcheck.FORGOTTEN["momentum"][0])
    _, name, reference = fails()
    assert (name, reference) == ("SGD momentum, float32", "torch.optim.SGD")
    assert metrics()["sgd_vs_torch_max_abs_diff"] > 0


def test_label_smoothing_ignored_in_place_fails_the_stage(fails, monkeypatch):
    monkeypatch.setattr(inplace, "smooth_labels", lambda y, n, _, *rest: losses.smooth_labels(y, n, 0.0, *rest))
    assert fails() == (2, "in place, dropout and label smoothing", "backpropagation and SGD")


def test_nan_gradient_fails_the_stage(fails, monkeypatch):
    tanh = mynet.ACTIVATIONS["tanh"]
    monkeypatch.setitem(mynet.ACTIVATIONS, "tanh", tanh._replace(df=lambda z: torch.full_like(z, float("nan"))))
    assert "tanh" in fails()[1]
    assert metrics()["backprop_vs_autograd_max_rel_error"] is None


def test_networks_that_are_all_on_a_kink_fail_the_stage(project, fails_with, monkeypatch):
    monkeypatch.setattr(gradcheck, "MAX_DRAWS", 0)
    assert fails_with("verify.py").startswith("error: params.yaml: verify.seed gives 0 networks")
    assert not GATE.exists()


def test_missing_data_closes_the_gate_of_an_earlier_run(project, fails_with):
    GATE.write_text("{}")
    Path("data/prepared/train.safetensors").unlink()
    message = fails_with("verify.py")
    assert message.startswith("error: data/prepared/train.safetensors is missing; `dvc repro` makes it")
    assert not GATE.exists()
