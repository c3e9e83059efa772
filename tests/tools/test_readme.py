import json
import os
import re
from pathlib import Path

import pytest
import yaml

from cifar2 import params
from cifar2.errors import UserError
from tests.conftest import ROOT
from tools import readme

CLASSES = params.load(ROOT / "params.yaml").data.classes
DOCUMENTS = {path.relative_to(ROOT): path.read_text() for path in readme.documents(ROOT)}
README = DOCUMENTS[Path("README.md")]
TEXT = "\n".join(DOCUMENTS.values())
PATH = {"PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_tables_and_code_are_current(path):
    text = DOCUMENTS[path]
    assert readme.filled(text, ROOT) == text, "run `make readme`"


def test_every_table_is_shown():
    assert {m[2] for m in readme.TABLES.finditer(TEXT)} == set(readme.BLOCKS.split("|"))


def test_readme_shows_backpropagation_and_sgd():
    assert [Path(m[2]).name for m in readme.CODE.finditer(README)] == ["mynet.py", "sgd.py"]


def committed(path: str, key: str) -> object:
    value = json.loads((ROOT / path).read_text())
    for part in key.split("."):
        value = value[part]
    return value


def test_transcripts_show_the_committed_metrics():
    rows = re.findall(r"^(metrics/\S+\.json) +(\S+) +(\S+) +\S+ +\S+$", TEXT, re.MULTILINE)
    assert len(rows) > 3
    for path, key, before in rows:
        value = committed(path, key)
        expected = f"{value:.5g}" if isinstance(value, float) else str(value)
        assert before == expected or float(before) == pytest.approx(value, abs=1e-5), "run `make readme`"


def test_predictions_are_correct_or_called_incorrect():
    """The images are named after their classes."""
    shown = re.findall(r"^(\w+) +[\d.]+%  (\S+)$", TEXT, re.MULTILINE)
    classes = {image: (Path(image).stem.rstrip("0123456789"), predicted) for predicted, image in shown}
    incorrect = {image for image, (actual, predicted) in classes.items() if actual != predicted}
    assert incorrect == set(re.findall(r"is incorrect: `(\S+)`", TEXT))
    assert {predicted for image, (_, predicted) in classes.items() if image not in incorrect} == set(CLASSES)


def test_stage_table_names_every_stage():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    rows = re.findall(r"^\| (`\w+(?:@\w+)?`[^|]*) \|", README, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)", row)} == set(stages)


def headings(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of ``path``."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", [*DOCUMENTS, Path("CONTRIBUTING.md")], ids=str)
def test_links_lead_to_files_and_headings(path):
    text = re.sub(r"```.*?```", "", (ROOT / path).read_text(), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        linked = Path(os.path.normpath(ROOT / path.parent / target)) if target else ROOT / path
        assert linked.exists(), target
        assert not anchor or anchor in headings(linked), f"{target}#{anchor}"
    for image in re.findall(r'<img src="([^"]+)"', text):
        assert (ROOT / path.parent / image).exists(), image


def test_readme_links_to_every_page_of_docs():
    linked = {Path(target) for target in re.findall(r"\]\((docs/[^)#]+)", README)}
    assert linked == DOCUMENTS.keys() - {Path("README.md")}


def test_code_is_the_body_of_a_function(tmp_path):
    module = tmp_path / "module.py"
    module.write_text('class C:\n    def f(self):\n        """Text."""\n        a = 1\n        return a\n\n\nb = 2\n')
    assert readme.source(module, "C.f") == "a = 1\nreturn a\n"
    with pytest.raises(UserError, match=r"module\.py has no C\.g"):
        readme.source(module, "C.g")


def test_code_is_an_assignment(tmp_path):
    module = tmp_path / "module.py"
    module.write_text("a = 1\nb = {\n    2: 3,\n}\nc = 4\n")
    assert readme.source(module, "b") == "b = {\n    2: 3,\n}\n"


def test_changed_code_is_shown_again(tmp_path):
    (tmp_path / "module.py").write_text("def f():\n    return 1\n")
    text = "<!-- code module.py:f -->\n```python\nreturn 0\n```\n"
    assert readme.filled(text, tmp_path) == text.replace("0", "1")


def test_a_cell_is_shown_with_its_output(tmp_path):
    (tmp_path / "script.py").write_text('"""Text."""\n\n# %% one\na = 1\n\n# %% two\nprint(a + 1)\n')
    text = "".join(f"<!-- cell script.py:{name} -->\nold\n<!-- end -->\n" for name in ("two", "one"))
    two = "```python\nprint(a + 1)\n```\n\n```text\n2\n```\n"
    assert readme.filled(text, tmp_path) == text.replace("old\n", two, 1).replace("old\n", "```python\na = 1\n```\n")


def test_an_unknown_cell_is_an_error(tmp_path):
    (tmp_path / "script.py").write_text("# %% one\n")
    with pytest.raises(UserError, match=r"script\.py has no cell two"):
        readme.filled("<!-- cell script.py:two -->\n<!-- end -->\n", tmp_path)


def test_the_course_shows_every_cell_of_its_example():
    cells = [match[3] for match in readme.CELL.finditer(DOCUMENTS[Path("docs/mathematics.md")])]
    assert cells == list(readme.run_cells(ROOT / "examples/two_three_two.py"))


def test_the_example_by_hand_matches_the_library():
    outputs = "".join(output for _, output in readme.run_cells(ROOT / "examples/two_three_two.py").values())
    assert set(re.findall(r"matches (.*): True", outputs)) == {
        "MyNet",
        "losses.py",
        "backpropagation",
        "dL_dw[1]",
        "SGD",
    }
    assert "False" not in outputs


def test_typed_and_printed_lines_are_told_apart():
    assert readme.commands("$ dvc repro\nnothing to do\n$ dvc push\n") == ["dvc repro", "dvc push"]


def test_a_training_log_is_shortened(tmp_path):
    block = "$ printf 'a\\nfine seed 0 epoch 1: x\\nfine seed 0 epoch 2: y\\nb\\n'\nold output\n"
    assert readme.transcript(block, tmp_path, PATH).splitlines()[1:] == ["a", "... training log", "b"]


def test_successive_unchanged_stages_are_folded():
    a, b, c = (f"Stage '{name}' didn't change, skipping" for name in ("a", "train@b", "c"))
    shortened = readme.shortened([a, b, "Running stage 'd':", "Updating lock file 'dvc.lock'", "", c])
    assert shortened == ["... 2 stages didn't change, skipping", "Running stage 'd':", c]


def test_folding_a_folded_transcript_changes_nothing():
    lines = TEXT.splitlines()
    assert readme.shortened(lines) == lines


def test_a_failing_command_raises(tmp_path):
    with pytest.raises(readme.subprocess.CalledProcessError):
        readme.transcript("$ false\n", tmp_path, PATH)


def test_every_transcript_is_generated():
    generated = "".join(match[2] for match in readme.CONSOLE.finditer(TEXT))
    assert readme.commands(TEXT) == readme.commands(generated)
