from pathlib import Path

import pytest
import torch

from cifar2.evaluation import summary

RESULTS = Path("extended/data/replicated/fine.safetensors")


def test_results_start_with_those_of_stage_train(trained, run_stage):
    before = set(trained.snapshot())
    run_stage("replicate.py", "fine")
    assert set(trained.snapshot()) - before == {str(RESULTS)}
    again, first = summary.load(RESULTS), summary.load(Path("data/validated/fine.safetensors"))
    assert len(again.correct) == 3
    for name in first._fields:
        assert torch.equal(getattr(again, name)[:2], getattr(first, name))


def test_unknown_configuration_is_one_line(project, fails_with):
    assert fails_with("replicate.py", "fin").startswith("error: params.yaml: configs has no 'fin', only precise, ")


def test_diverged_replication_is_one_line_and_nothing_is_written(project, fails_with):
    project.params["configs"]["fine"]["lr"] = 1e30
    project.write_params()
    assert "fine diverged at seed 0, epoch 1" in fails_with("replicate.py", "fine")
    assert not RESULTS.exists()


@pytest.mark.parametrize("name", ["fine"])
def test_second_run_writes_the_same_bytes(project, run_stage, name):
    run_stage("replicate.py", name)
    before = RESULTS.read_bytes()
    run_stage("replicate.py", name)
    assert RESULTS.read_bytes() == before
