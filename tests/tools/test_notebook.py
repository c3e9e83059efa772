import re

import nbformat
import pytest

from tests.conftest import ROOT
from tools import notebook

PAGE = (ROOT / notebook.PAGE).read_text()
TEXT = (ROOT / notebook.NOTEBOOK).read_text()
COMMITTED = nbformat.reads(TEXT, as_version=4)


def printed(cell):
    """What a code cell printed."""
    return "".join(output.text for output in cell.outputs)


def test_the_notebook_is_valid():
    nbformat.validate(COMMITTED)


def test_the_notebook_is_made_from_the_page():
    committed = [(cell.id, cell.cell_type, cell.source) for cell in COMMITTED.cells]
    made = [(cell.id, cell.cell_type, cell.source) for cell in notebook.notebook(PAGE).cells]
    assert committed == made, "run `make readme`"


def test_the_notebook_prints_what_the_page_shows():
    shown = re.findall(r"<!-- cell \S+:(\S+) -->.*?(?:```text\n(.*?)```\n)?<!-- end -->", PAGE, re.DOTALL)
    cells = [(cell.id, printed(cell)) for cell in COMMITTED.cells if cell.cell_type == "code"]
    assert cells == [("path", ""), *shown], "run `make readme`"


def test_the_notebook_contains_no_version_time_or_path():
    assert COMMITTED.metadata == notebook.METADATA
    assert not any(cell.metadata for cell in COMMITTED.cells)
    assert not re.search(r"[\s\"'(=]/\w+/|\.venv/|\d\d:\d\d", TEXT), "an absolute path, the environment, a time"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<!-- code a.py:f -->\n```python\nf\n```", "```python\nf\n```"),
        ("```math\nx\n```\n", "$$\nx\n$$"),
        ("[a](sharing.md#b)", "[a](../docs/sharing.md#b)"),
        ("[a](../README.md)", "[a](../README.md)"),
        ("[a](https://example.org/b.md)", "[a](https://example.org/b.md)"),
        ("f[1](x)", "f[1](x)"),
    ],
)
def test_markdown_is_adapted_to_jupyter(text, expected):
    assert notebook.markdown(text) == expected


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["notebooks", "."])
def test_running_the_notebook_again_gives_the_same_bytes(folder):
    executed = notebook.execute(notebook.notebook(PAGE), ROOT / folder)
    assert nbformat.writes(executed) + "\n" == TEXT
