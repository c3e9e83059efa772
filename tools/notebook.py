"""Write notebooks/mathematics.ipynb from docs/mathematics.md: ``make readme``.

The cells of the worked example become code cells with their outputs; the rest of the page becomes Markdown cells.
"""

import argparse
import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode, v4

from cifar2 import errors

PAGE, NOTEBOOK = Path("docs/mathematics.md"), Path("notebooks/mathematics.ipynb")
# The name and the code of a cell on the page.
CELL = re.compile(r"<!-- cell \S+:(\S+) -->\n```python\n(.*?)\n```\n.*?<!-- end -->\n", re.DOTALL)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SETUP = """\
This notebook needs the project's environment, which `make install-docs` creates. In VS Code, select `.venv` as the
kernel. For Jupyter, activate it, run `python -m ipykernel install --user --name cifar2` once, and select the kernel
`cifar2`. In Colab, run these lines in a cell of their own first, with the address of the repository:

```
!git clone ADDRESS cifar2
%cd cifar2/notebooks
```"""
PATH = """\
import sys

sys.path[:0] = ["..", "."]  # the repository, from notebooks/ or from its root"""


def notebook(page: str) -> NotebookNode:
    """The notebook of a page, without outputs."""
    first, *rest = CELL.split(page)
    cells = [
        v4.new_markdown_cell(markdown(first), id="introduction"),
        v4.new_markdown_cell(SETUP, id="setup"),
        v4.new_code_cell(PATH, id="path"),
    ]
    for name, code, text in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        cells += [v4.new_code_cell(code, id=name), v4.new_markdown_cell(markdown(text), id=f"after-{name}")]
    new: NotebookNode = v4.new_notebook(metadata=METADATA, cells=cells)
    return new


def markdown(text: str) -> str:
    """A part of a page in docs/ for Jupyter: formulas between dollars, links from notebooks/, no comments."""
    text = re.sub(r"<!-- .*? -->\n", "", text)
    text = re.sub(r"```math\n(.*?)```", r"$$\n\1$$", text, flags=re.DOTALL)
    return re.sub(r"\]\((\w[\w-]*\.md)", r"](../docs/\1", text).strip()


def execute(unexecuted: NotebookNode, folder: Path) -> NotebookNode:
    """Run a notebook in ``folder``, and return it with its outputs, without versions and times."""
    executed = NotebookClient(
        unexecuted,
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,  # a kernel sends what a cell prints in any number of messages
        record_timing=False,
        startup_timeout=600,  # seconds: a busy machine is slow
        iopub_timeout=600,
        extra_arguments=["--log-level=ERROR"],
    ).execute()
    executed.metadata = METADATA
    return executed


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    executed = execute(notebook(PAGE.read_text()), NOTEBOOK.parent)
    NOTEBOOK.write_text(nbformat.writes(executed) + "\n")


if __name__ == "__main__":
    errors.run(main)
