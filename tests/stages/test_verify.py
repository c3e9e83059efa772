import json
from pathlib import Path

import pytest
import torch

from cifar2 import gradcheck, inplace, mynet, sgd
from tests import test_gradcheck, test_sgdcheck

GATE = Path("data/verified.json")


def test_everything_passes_and_the_gate_opens(project, run_stage):
    run_stage("verify.py")
    metrics = json.loads(Path("metrics/verify.json").read_text())
    assert metrics["passed"] is True
    assert metrics["sgd_vs_torch_max_abs_diff"] == 0
    assert 0 < metrics["backprop_vs_autograd_max_rel_error"] < 1e-12
    assert 0 < metrics["backprop_vs_finite_difference_max_rel_error"] < 1e-7
    assert metrics["n_checks"] == len(json.loads(GATE.read_text())["passed"])
    assert Path("metrics/figures/gradient_errors.png").exists()


def test_the_gate_names_every_case_and_no_number(project, run_stage):
    run_stage("verify.py")
    passed = json.loads(GATE.read_text())["passed"]
    assert "3072-8-8-2 relu, identity output, cross_entropy, batch 32" in passed
    assert "SGD momentum and weight decay, float64" in passed
    assert "in place, nesterov and weight decay" in passed
    assert "in place, dropout and label smoothing" in passed
    project.params["verify"]["seed"] += 1
    project.write_params()
    before = GATE.read_bytes()
    run_stage("verify.py")
    assert GATE.read_bytes() == before


def by_layer():
    return json.loads(Path("metrics/verify.json").read_text())["by_layer"]


def test_the_largest_errors_by_layer_and_activation_stand_in_a_table(project, run_stage):
    run_stage("verify.py")
    settings, found = project.params["verify"], by_layer()
    assert [(row["layer"], row["activation"]) for row in found] == sorted(
        (layer, activation) for layer in (1, 2) for activation in settings["activations"]
    )
    metrics = json.loads(Path("metrics/verify.json").read_text())
    for method in gradcheck.Errors._fields:
        # The check on pictures, which has no layers, may be the worst of all.
        assert 0 < max(row[method] for row in found) <= metrics[f"backprop_vs_{method}_max_rel_error"]


def test_the_table_shows_the_layer_of_a_fault(project, fails_with, monkeypatch):
    monkeypatch.setattr(gradcheck, "backpropagation", test_gradcheck.wrong_sign)
    fails_with("verify.py")
    for row in by_layer():
        assert (row["autograd"] > 1e-6) == (row["layer"] == 1)


@pytest.mark.parametrize("wrong", test_gradcheck.WRONG[:3])
def test_a_wrong_backpropagation_fails_the_stage_and_the_case_is_named(project, fails_with, monkeypatch, wrong):
    monkeypatch.setattr(gradcheck, "backpropagation", wrong)
    message = fails_with("verify.py")
    assert "verification failed" in message
    assert "relative error" in message
    assert json.loads(Path("metrics/verify.json").read_text())["passed"] is False
    assert not GATE.exists()


def test_a_velocity_seeded_with_zero_fails_the_stage(project, fails_with, monkeypatch):
    monkeypatch.setattr(sgd.SGD, "_accumulate", test_sgdcheck.seeded_with_zero)
    assert "SGD momentum, float32: differs from torch.optim.SGD by" in fails_with("verify.py")
    assert not GATE.exists()


def test_labels_that_are_not_smoothed_fail_the_stage(project, fails_with, monkeypatch):
    monkeypatch.setattr(inplace, "smoothed", lambda y, n, _, dtype: mynet.smoothed(y, n, 0.0, dtype))
    message = fails_with("verify.py")
    assert "failed in 1 of its checks" in message
    assert "in place, dropout and label smoothing: differs from backpropagation and SGD by" in message
    assert not GATE.exists()


def test_a_gradient_that_is_no_number_fails_the_stage(project, fails_with, monkeypatch):
    tanh = mynet.ACTIVATIONS["tanh"]
    monkeypatch.setitem(mynet.ACTIVATIONS, "tanh", tanh._replace(df=lambda z: torch.full_like(z, float("nan"))))
    assert "tanh" in fails_with("verify.py")
    assert json.loads(Path("metrics/verify.json").read_text())["backprop_vs_autograd_max_rel_error"] is None
    assert not GATE.exists()


def test_networks_that_all_lie_on_a_kink_fail_the_stage(project, fails_with, monkeypatch):
    monkeypatch.setattr(gradcheck, "MAX_DRAWS", 0)
    message = fails_with("verify.py")
    assert message.startswith("error: params.yaml: verify.seed gives 0 networks")
    assert not GATE.exists()


def test_missing_data_is_one_line(project, fails_with):
    Path("data/prepared/train.safetensors").unlink()
    assert fails_with("verify.py").startswith("error: data/prepared/train.safetensors is missing; `dvc repro` makes it")
