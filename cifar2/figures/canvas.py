"""Matplotlib with fixed settings, and ``write``, which stores a figure with the same bytes every time."""

import io
import os
import tempfile
from pathlib import Path

from cifar2 import files

# Matplotlib would read the user's settings and cache a list of all installed fonts in the home directory.  A temporary
# folder and matplotlib's own fonts take 0.3 s and give the same bytes everywhere.  A notebook's backend is for a
# screen, and need not be installed here.
os.environ |= {"MPL_IGNORE_SYSTEM_FONTS": "1", "MPLBACKEND": "agg"}
with tempfile.TemporaryDirectory() as os.environ["MPLCONFIGDIR"]:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
del os.environ["MPLCONFIGDIR"]

# The other modules take matplotlib from here, so that it is never imported without this set-up.
__all__ = ["Axes", "Figure", "mpl", "write"]

mpl.rcdefaults()  # a user's own matplotlibrc would change the bytes
mpl.rcParams.update(
    {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.alpha": 0.3}
)


def write(path: Path, figure: Figure) -> None:
    """Write ``figure`` as PNG, without matplotlib's version in it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    files.write(path, content.getvalue())
