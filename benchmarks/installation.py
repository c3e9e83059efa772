"""Size and time of the installation, against that of an earlier commit; packages come from uv's cache."""

import shutil
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, interleaved, row, seconds
from benchmarks.stages import ROOT, run
from cifar2.params import Params

# The commit before packages were installed by group: one environment for everything.
OLD = "5e6f3db"
ROUNDS = 3
COMMANDS = {
    "`make repro`": ["make", "install"],
    "`make sweep`": ["make", "install-sweep"],
    "`make demo`": ["make", "install-demo"],
    "`make test`": ["make", "install-test"],
    "`make lint`": ["make", "install-lint"],
    "`cifar2 predict` alone": ["uv", "tool", "install", "--quiet", "."],
}


def rows(_: Params) -> list[Row]:
    """The time of ``make install``, and the sizes of what each command needs."""
    with tempfile.TemporaryDirectory() as name:
        clones = {commit: Path(name, commit) for commit in (OLD, "HEAD")}
        for commit, clone in clones.items():
            run(["git", "clone", "--quiet", str(ROOT), str(clone)])
            run(["git", "checkout", "--quiet", "--detach", commit], clone)
        turns = {commit: partial(_installation, clone, ["make", "install"]) for commit, clone in clones.items()}
        times = interleaved(turns, ROUNDS)
        old = _size(clones[OLD])
        sizes = {}
        for what, command in COMMANDS.items():
            _installation(clones["HEAD"], command)
            sizes[what] = _size(clones["HEAD"])
    return [
        row("time_of_installation", f"`make install`, against commit {OLD}", times["HEAD"], times[OLD], "s"),
        *(
            row(f"size_{i}", f"the packages for {what}, against commit {OLD}", [size], [old], "GB", needed_by=what)
            for i, (what, size) in enumerate(sizes.items())
        ),
    ]


def _installation(clone: Path, command: list[str]) -> float:
    """The time of an installation from nothing, in seconds."""
    shutil.rmtree(clone / ".venv", ignore_errors=True)
    # Where `uv tool install` puts the environment and the command.
    variables = {"UV_TOOL_DIR": f"{clone}/.venv", "UV_TOOL_BIN_DIR": f"{clone}/.venv/bin"}
    return seconds(lambda: run(command, clone, **variables))


def _size(clone: Path) -> float:
    """The size of the environment in GB."""
    return sum(path.lstat().st_size for path in (clone / ".venv").rglob("*")) / 1e9
