import io
import subprocess
import sys

import matplotlib.image
from matplotlib.figure import Figure

from cifar2.figures import canvas
from tests.conftest import ROOT


def texts(figure: Figure) -> str:
    """Every text of ``figure``, one per line."""
    return "\n".join(text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text")))


def test_a_figure_has_reproducible_bytes_and_names_no_software(tmp_path):
    for name in ("a", "b"):
        figure = canvas.Figure((2, 2))
        figure.subplots().plot([1, 2], [3, 5])
        canvas.write(tmp_path / name, figure)
    content = (tmp_path / "a").read_bytes()
    assert content == (tmp_path / "b").read_bytes()
    assert b"tEXt" not in content
    assert matplotlib.image.imread(io.BytesIO(content)).std() > 0


def test_the_backend_of_a_notebook_is_ignored(monkeypatch):
    """In a child process, since matplotlib reads the variable once."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    code = "from cifar2.figures import canvas; canvas.Figure().subplots()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
