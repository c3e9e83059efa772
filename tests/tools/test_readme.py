import json
import re
from pathlib import Path

import pytest

from cifar2 import params
from tests.conftest import ROOT
from tools import readme

CLASSES = params.load(ROOT / "params.yaml").data.classes
TEXT = (ROOT / "README.md").read_text()


def test_its_tables_are_those_of_the_committed_metrics():
    assert {m[2] for m in readme.TABLES.finditer(TEXT)} == {"claims", "results"}
    assert readme.filled(TEXT, ROOT, readme.told(TEXT)) == TEXT, "run `make readme`"


def test_training_times_stay_as_they_are_where_they_were_not_measured():
    told = readme.told(TEXT)
    assert " times as fast " in told.pop(readme.SPEED)
    assert len(told) >= 4
    assert all(re.match(r"\d+ s", time) for time in told.values())


def committed(path: str, key: str) -> object:
    value = json.loads((ROOT / path).read_text())
    for part in key.split("."):
        value = value[part]
    return value


def test_the_values_before_a_change_in_its_transcripts_are_the_committed_ones():
    rows = re.findall(r"^(metrics/\S+\.json) +(\S+) +(\S+) +\S+ +\S+$", TEXT, re.MULTILINE)
    assert len(rows) > 3
    for path, key, before in rows:
        value = committed(path, key)
        wanted = f"{value:.5g}" if isinstance(value, float) else str(value)
        assert before == wanted or float(before) == pytest.approx(value, abs=1e-5), "run `make readme`"


def test_its_predictions_are_correct_or_called_incorrect():
    """The images are named after their classes."""
    shown = re.findall(r"^(\w+) +[\d.]+%  (\S+)$", TEXT, re.MULTILINE)
    classes = {image: (Path(image).stem.rstrip("0123456789"), predicted) for predicted, image in shown}
    incorrect = {image for image, (actual, predicted) in classes.items() if actual != predicted}
    assert incorrect == set(re.findall(r"is incorrect: `(\S+)`", TEXT))
    assert {predicted for image, (_, predicted) in classes.items() if image not in incorrect} == set(CLASSES)


def test_it_links_to_files_that_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_typed_lines_and_printed_lines_are_told_apart():
    assert readme.commands("$ dvc repro\nnothing to do\n$ dvc push\n") == ["dvc repro", "dvc push"]


def test_a_training_log_is_shortened(tmp_path):
    block = "$ printf 'a\\nfine seed 0 epoch 1: x\\nfine seed 0 epoch 2: y\\nb\\n'\nold output\n"
    assert readme.transcript(block, tmp_path, {"PATH": "/usr/bin:/bin"}).splitlines()[1:] == ["a", "...", "b"]


def test_a_command_that_fails_leaves_the_readme_alone(tmp_path):
    with pytest.raises(readme.subprocess.CalledProcessError):
        readme.transcript("$ false\n", tmp_path, {"PATH": "/usr/bin:/bin"})


def test_every_transcript_is_generated():
    generated = "".join(match[2] for match in readme.CONSOLE.finditer(TEXT))
    assert readme.commands(TEXT) == readme.commands(generated)
