import io
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from cifar2.figures import canvas
from tests.conftest import ROOT


def texts(figure: Figure) -> str:
    """Every text of ``figure``, one per line."""
    return "\n".join(text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text")))


def assert_readable(figure: Figure) -> None:
    """Texts with letters or a per cent sign do not overlap, and none leaves the figure at its sides."""
    figure.savefig(io.BytesIO())
    # Matplotlib keeps ticks beyond the ends of an axis and does not draw them.
    visible = (text for text in figure.findobj(Text) if text.get_visible())
    shown = [text for text in visible if re.search(r"[a-z]|%", text.get_text())]
    left, low, right, high = np.array([text.get_window_extent().extents for text in shown]).T
    overlaps = (left[:, None] <= right) & (left <= right[:, None]) & (low[:, None] <= high) & (low <= high[:, None])
    assert [(shown[i].get_text(), shown[j].get_text()) for i, j in np.argwhere(np.triu(overlaps, 1))] == []
    edge = figure.bbox
    assert edge.x0 <= left.min()
    assert right.max() <= edge.x1


def test_a_figure_has_reproducible_bytes_and_names_no_software(tmp_path):
    for name in ("a", "b"):
        figure = canvas.Figure((2, 2))
        figure.subplots().plot([1, 2], [3, 5])
        canvas.write(tmp_path / name, figure)
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    assert b"tEXt" not in content
    assert matplotlib.image.imread(io.BytesIO(content)).std() > 0


@pytest.mark.slow
def test_the_backend_of_a_notebook_is_ignored(monkeypatch):
    """In a child process, since matplotlib reads the variable once."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    code = "from cifar2.figures import canvas; canvas.Figure().subplots()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_name_without_glyphs_is_a_number_and_a_long_one_is_cut():
    names = ["cat", "кот", "猫", "a $name$", "a name of thirty characters, no"]
    assert canvas.short(names) == ["cat", "кот", "class 2", r"a \$name\$", "a name of thirty ch…"]


def test_dollar_signs_in_a_name_are_no_formula(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain, escaped = (canvas.Figure((2, 2)) for _ in range(2))
    plain.text(0.1, 0.5, "$x$ to $y$", parse_math=False)
    escaped.text(0.1, 0.5, canvas.short(["$x$ to $y$"])[0])
    contents = []
    for figure in (plain, escaped):
        canvas.write(Path("figure.png"), figure)
        contents.append(Path("figure.png").read_bytes())
    assert contents[0] == contents[1]
