import json
import os
import subprocess

import pytest
import yaml

from tools import compare
from tools.compare import differences, hashes

# A user may have git sign every commit.
PLAIN_GIT = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
METRICS = {
    "config": "fine",
    "test_accuracy": 0.8435,
    "test_accuracy_ci95": [0.82, 0.86],
    "n_seeds": 3,
    "passed": True,
    "spread": None,
}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"test_accuracy": 0.8440}, "m test_accuracy: 0.844, committed 0.8435"),
        ({"test_accuracy_ci95": [0.82, 0.87]}, "m test_accuracy_ci95[1]: 0.87, committed 0.86"),
        ({"test_accuracy_ci95": [0.82]}, "m test_accuracy_ci95: [0.82], committed [0.82, 0.86]"),
        ({"config": "fast"}, "m config: fast, committed fine"),
        ({"passed": False}, "m passed: False, committed True"),
        ({"passed": 1}, None),
        ({"spread": 0.1}, "m spread: 0.1, committed None"),
        ({"test_accuracy": float("nan")}, "m test_accuracy: nan, committed 0.8435"),
        ({"new": 1}, "m new: 1, committed None"),
    ],
)
def test_a_difference_is_named(changes, line):
    lines = list(differences(METRICS, METRICS | changes, "m"))
    assert lines == ([line] if line else [])


def test_rounding_is_not_a_difference():
    assert not list(
        differences(
            METRICS, METRICS | {"test_accuracy": 0.8435 * (1 + 1e-8), "test_accuracy_ci95": [0.82 - 1e-9, 0.86]}, "m"
        )
    )


def test_a_missing_file_is_a_difference():
    assert list(differences(METRICS, None, "m"))


def test_hashes_are_those_of_outputs():
    lock = yaml.safe_dump(
        {"stages": {"a": {"deps": [{"path": "x", "md5": "1"}], "outs": [{"path": "y", "md5": "2"}]}, "b": {}}}
    )
    assert hashes(lock) == {"y": "2"}


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/m.json").write_text(json.dumps(METRICS))
    (tmp_path / "dvc.lock").write_text("stages: {a: {outs: [{path: y, md5: '1'}]}}")
    for command in (["init"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a", "commit", "-m", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True, env=PLAIN_GIT)
    return tmp_path


@pytest.fixture
def run_on(repository, monkeypatch, capsys):
    """Compare on a processor of this vendor; returns what is printed, and the text of a failure."""

    def run(vendor):
        processors = repository / "cpuinfo"
        processors.write_text(f"vendor_id\t: {vendor}\n")
        monkeypatch.setattr(compare, "PROCESSORS", processors)
        monkeypatch.chdir(repository)
        try:
            compare.main()
        except SystemExit as stop:
            return capsys.readouterr().out, stop.code
        return capsys.readouterr().out, None

    return run


def test_equal_metrics_and_bits_pass(run_on):
    assert run_on("AuthenticAMD") == ("1 metrics files match the committed ones, and all but 0 of 1 hashes\n", None)


def test_equal_metrics_with_different_bits_pass(repository, run_on):
    (repository / "dvc.lock").write_text("stages: {a: {outs: [{path: y, md5: '2'}]}}")
    printed, failure = run_on("AuthenticAMD")
    assert failure is None
    assert "not bit-identical: y 2, committed 1" in printed


@pytest.mark.parametrize("vendor", ["AuthenticAMD", "GenuineIntel"])
def test_a_missing_file_fails(repository, run_on, vendor):
    (repository / "metrics/m.json").unlink()
    assert run_on(vendor)[1] is not None


def test_a_different_metric_fails(repository, run_on):
    (repository / "metrics/m.json").write_text(json.dumps(METRICS | {"test_accuracy": 0.85}))
    assert "metrics/m.json test_accuracy: 0.85, committed 0.8435" in run_on("AuthenticAMD")[1]


@pytest.mark.parametrize(("accuracy", "passes"), [(0.87, True), (0.873, False), (0.815, False), (float("nan"), False)])
def test_on_another_processor_chance_may_differ(repository, run_on, accuracy, passes):
    (repository / "metrics/m.json").write_text(json.dumps(METRICS | {"test_accuracy": accuracy, "spread": 1}))
    printed, failure = run_on("GenuineIntel")
    if passes:
        assert failure is None
        assert "not an AMD processor" in printed
    else:
        assert f"metrics/m.json test_accuracy: {accuracy}, committed 0.8435 ± 0.0283" in failure


def test_a_validation_accuracy_may_differ_by_its_error():
    committed = {"val_accuracy": 0.8, "val_accuracy_se": 0.01}
    assert not list(compare.more_than_chance(committed, committed | {"val_accuracy": 0.828}, "m", {}))
    assert list(compare.more_than_chance(committed, committed | {"val_accuracy": 0.771}, "m", {}))


@pytest.mark.parametrize(("n_seeds", "passes"), [(1, True), (3, False)])
def test_one_run_may_differ_as_a_new_run(n_seeds, passes):
    committed = METRICS | {"n_seeds": n_seeds}
    lines = compare.more_than_chance(committed, committed | {"test_accuracy": 0.80}, "m", {"fine": 0.1})
    assert (not list(lines)) == passes
