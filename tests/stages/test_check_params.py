from pathlib import Path

import pytest


@pytest.mark.parametrize("arguments", [(), ("--extended",)])
def test_valid_parameters_leave_a_file_without_values(project, run_stage, arguments):
    """A changed value reruns only the stages that read it."""
    run_stage("check_params.py", *arguments)
    checked = Path("extended" if arguments else "", "data/checked.json")
    before = checked.read_bytes()
    project.params["configs"]["fine"]["lr"] = 0.02
    project.write_params()
    run_stage("check_params.py", *arguments)
    assert checked.read_bytes() == before


def test_invalid_parameter_is_one_line(project, fails_with):
    project.params["configs"]["fine"]["lr"] = -1
    project.write_params()
    before = project.snapshot()
    assert "params.yaml: configs.fine.lr must be greater than 0, not -1" in fails_with("check_params.py")
    assert project.snapshot() == before
