"""Matplotlib with fixed settings, and ``write``, which stores a figure with the same bytes every time."""

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from cifar2 import files

# Matplotlib would read the user's settings and cache a list of all installed fonts in the home directory.  A temporary
# folder and matplotlib's own fonts take 0.3 s and give the same bytes everywhere.  A notebook's backend is for a
# screen, and need not be installed here.
os.environ |= {"MPL_IGNORE_SYSTEM_FONTS": "1", "MPLBACKEND": "agg"}
with tempfile.TemporaryDirectory() as os.environ["MPLCONFIGDIR"]:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import fontManager, get_font
del os.environ["MPLCONFIGDIR"]

# The other modules take matplotlib from here, so that it is never imported without this set-up.
__all__ = ["Axes", "Figure", "image_grid", "mpl", "short", "write"]

mpl.rcdefaults()  # a user's own matplotlibrc would change the bytes
mpl.rcParams.update(
    {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.alpha": 0.3}
)
# Characters of a name.
LONGEST = 20


def short(classes: Sequence[str]) -> list[str]:
    """The names of classes for a figure: shortened, and by number where the font lacks a character."""
    known = get_font(fontManager.findfont("DejaVu Sans")).get_charmap()
    names = [f"class {i}" if any(ord(c) not in known for c in name) else name for i, name in enumerate(classes)]
    # Between two dollar signs matplotlib reads a formula.
    return [(f"{n[: LONGEST - 1]}…" if len(n) > LONGEST else n).replace("$", r"\$") for n in names]


def image_grid(
    images: Tensor,
    title: str,
    columns: int,
    size: tuple[float, float, float],
    captions: Sequence[str],
    **font: Any,  # noqa: ANN401
) -> Figure:
    """Images, N x 3 x height x width, uint8 or 0 to 1, each under its caption.

    ``size`` is the width of the figure, the height of its title, and the height of a row, in inches; ``font`` are
    arguments of ``Axes.set_title`` for the captions.
    """
    width, header, height = size
    rows = max(1, -(-len(images) // columns))
    figure = Figure((width, header + height * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, image, caption in zip(figure.axes, images, captions, strict=False):
        axes.imshow(image.permute(1, 2, 0).numpy())
        axes.set_title(caption, **font)
    figure.suptitle(title)
    return figure


def write(path: Path, figure: Figure) -> None:
    """Write ``figure`` as PNG, without matplotlib's version in it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    files.write(path, content.getvalue())
