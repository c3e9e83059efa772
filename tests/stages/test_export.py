import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cifar2 import files
from cifar2.dataset import splits
from cifar2.deploy import export
from cifar2.networks import classifier
from cifar2.training import hardware
from tests.conftest import ROOT, SIZES

pytestmark = pytest.mark.slow

MODEL, PAGE = "data/models/final.onnx", "data/models/final.md"
EVALUATED = Path("data/evaluated/final.safetensors")
INPUTS = [
    "data/models/final.safetensors",
    "data/prepared/test.safetensors",
    "data/evaluated/final.safetensors",
    "metrics/prepare.json",
    "metrics/refit/final.json",
    "metrics/evaluate/final.json",
]


@pytest.fixture
def measured(evaluated):
    """The project with all inputs of ``export``."""
    files.write_json(
        Path("metrics/prepare.json"), {"own_images": False} | {f"n_{name}": n for name, n in SIZES.items()}
    )
    return evaluated


@pytest.fixture
def exported(measured, run_stage, once):
    """The project after ``export``."""
    return once("exported", measured, lambda: run_stage("export.py"))


@pytest.fixture
def known(exported, monkeypatch):
    """The same, where exporting the model again takes no time."""
    content = Path(MODEL).read_bytes()
    monkeypatch.setattr(export, "to_onnx", lambda *_: content)
    for path in (MODEL, PAGE):
        Path(path).unlink()
    return exported


def change_logits(change):
    """Change the logits of the evaluation."""
    tensors, about = files.read_tensors(EVALUATED)
    tensors["logits"] = change(tensors["logits"])
    files.write_tensors(EVALUATED, tensors, about)


def test_exported_model_matches_the_final_model_on_test_images(exported):
    test = splits.load(Path("data/prepared/test.safetensors"))
    evaluated, _ = files.read_tensors(EVALUATED)
    logits = export.run(Path(MODEL).read_bytes(), test.x, threads=1)
    assert (logits - evaluated["logits"][0]).abs().max() <= 1e-5 * evaluated["logits"].abs().max()
    assert torch.equal(logits.argmax(1), evaluated["logits"][0].argmax(1))


def test_model_card_describes_the_final_model(exported):
    card, _, _ = classifier.load(Path("data/models/final.safetensors"))
    final = json.loads(Path("metrics/evaluate/final.json").read_text())
    page = Path(PAGE).read_text()
    assert f"`{card.name}`" in page
    assert f"accuracy {final['test_accuracy']:.4f}" in page
    assert f"{SIZES['train']} images" in page
    assert f"{SIZES['val']} other images" in page


def test_nothing_is_printed_on_stderr(measured):
    command = [sys.executable, str(ROOT / "stages/export.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)


def test_second_run_writes_the_same_bytes(exported, run_stage):
    first = exported.snapshot()
    for path in (MODEL, PAGE):
        Path(path).unlink()
    torch.rand(1)
    run_stage("export.py")
    assert exported.snapshot() == first


def test_number_of_equal_predictions_is_printed(known, run_stage, capsys):
    run_stage("export.py")
    assert "onnxruntime and PyTorch: 30 of 30 predictions agree, logits differ by " in capsys.readouterr().out


def test_export_reads_only_its_inputs(known, run_stage):
    for path in known.snapshot().keys() - {*INPUTS, "params.yaml"}:
        Path(path).unlink()
    run_stage("export.py")
    for path in (MODEL, PAGE):
        assert Path(path).exists()


@pytest.mark.parametrize(
    ("change", "n_other"),
    [
        (lambda logits: logits + 2e-5 * logits.abs().max(), 0),
        (lambda logits: -logits, SIZES["test"]),
        (lambda logits: logits.where(logits < logits.amax(2, keepdim=True), torch.nan), 0),  # argmax takes a NaN
    ],
    ids=["a little", "the other class", "NaN"],
)
def test_other_logits_are_one_line_and_nothing_is_written(known, fails_with, change, n_other):
    change_logits(change)
    before = known.snapshot()
    message = fails_with("export.py")
    assert "the ONNX model differs from data/models/final.safetensors: logits by " in message
    assert re.search(rf", tolerance \S+, predictions on {n_other} test images; nothing was written$", message)
    assert known.snapshot() == before


@pytest.mark.parametrize("size", [0.01, 1, 100])
def test_tolerance_is_relative_to_the_largest_logit(known, run_stage, fails_with, monkeypatch, size):
    logits = files.read_tensors(EVALUATED)[0]["logits"]
    change_logits(lambda logits: size * logits)
    largest = size * logits.abs().max()
    monkeypatch.setattr(export, "run", lambda *_: size * logits[0] + 2e-5 * largest)
    assert "the ONNX model differs" in fails_with("export.py")
    monkeypatch.setattr(export, "run", lambda *_: size * logits[0] + 5e-6 * largest)
    run_stage("export.py")
    assert Path(MODEL).exists()


def test_tie_of_two_classes_may_go_either_way(known, run_stage, monkeypatch, capsys):
    logits = torch.tensor([1.0, 1.0 + 1e-6]).repeat(SIZES["test"], 1)
    change_logits(lambda _: logits[None])
    monkeypatch.setattr(export, "run", lambda *_: logits.flip(1))
    run_stage("export.py")
    assert "0 of 30 predictions agree, logits differ by 9.5e-07" in capsys.readouterr().out
    assert Path(MODEL).exists()


def test_number_of_threads_is_that_of_params(known, run_stage, monkeypatch):
    known.params["train"]["threads"] = 3
    known.write_params()
    fixed = []
    monkeypatch.setattr(hardware, "fix_threads", fixed.append)
    run_stage("export.py")
    assert fixed == [3]
