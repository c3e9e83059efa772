import json
import os
import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT
from tools.compare import differences, hashes

# A user may have git sign every commit.
PLAIN_GIT = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
METRICS = {"config": "fine", "accuracy": 0.8435, "ci": [0.82, 0.86], "passed": True, "spread": None}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"accuracy": 0.8440}, "m accuracy: 0.844, committed 0.8435"),
        ({"ci": [0.82, 0.87]}, "m ci[1]: 0.87, committed 0.86"),
        ({"ci": [0.82]}, "m ci: [0.82], committed [0.82, 0.86]"),
        ({"config": "fast"}, "m config: fast, committed fine"),
        ({"passed": False}, "m passed: False, committed True"),
        ({"passed": 1}, None),
        ({"spread": 0.1}, "m spread: 0.1, committed None"),
        ({"accuracy": float("nan")}, "m accuracy: nan, committed 0.8435"),
        ({"new": 1}, "m new: 1, committed None"),
    ],
)
def test_a_difference_is_named(changes, line):
    lines = list(differences(METRICS, METRICS | changes, "m"))
    assert lines == ([line] if line else [])


def test_rounding_is_not_a_difference():
    assert not list(differences(METRICS, METRICS | {"accuracy": 0.8435 * (1 + 1e-8), "ci": [0.82 - 1e-9, 0.86]}, "m"))


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


def compare(repository):
    command = [sys.executable, str(ROOT / "tools/compare.py")]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)


def test_equal_metrics_and_bits_pass(repository):
    done = compare(repository)
    assert (done.returncode, done.stdout) == (
        0,
        "1 metrics files match the committed ones, and all but 0 of 1 hashes\n",
    )


def test_equal_metrics_with_different_bits_pass(repository):
    (repository / "dvc.lock").write_text("stages: {a: {outs: [{path: y, md5: '2'}]}}")
    done = compare(repository)
    assert done.returncode == 0
    assert "not bit-identical: y 2, committed 1" in done.stdout


def test_a_different_or_missing_metric_fails(repository):
    path = repository / "metrics/m.json"
    path.write_text(json.dumps(METRICS | {"accuracy": 0.9}))
    done = compare(repository)
    assert done.returncode == 1
    assert "metrics/m.json accuracy: 0.9, committed 0.8435" in done.stderr
    path.unlink()
    assert compare(repository).returncode == 1
