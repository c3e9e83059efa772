from pathlib import Path

import pytest

from cifar2 import errors, params
from tests.clone import read
from tests.conftest import ROOT
from tools import promote


@pytest.fixture
def swept(project):
    """A project with its own params.yaml as it is written by hand, and a table of three trials."""
    text = (ROOT / "params.yaml").read_text()
    Path("params.yaml").write_text(text)
    everything = params.load()
    points = [promote.space.point(everything.sweep.space, everything.sweep.seed, n) for n in range(3)]
    names = list(points[0])
    lines = [f"{rank},{n},k{n},{','.join(str(points[n][name]) for name in names)}" for rank, n in ((1, 2), (2, 0))]
    Path("metrics").mkdir()
    Path("metrics/sweep.csv").write_text("\n".join([f"rank,trial,key,{','.join(names)}", *lines]) + "\n")
    return points


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["promote", *arguments])
    errors.run(promote.main)


def test_it_adds_the_trial_as_an_entry_and_changes_nothing_else(swept, monkeypatch):
    before = Path("params.yaml").read_text()
    old = params.load()
    run(monkeypatch, "1", "swept")
    lines, old_lines = Path("params.yaml").read_text().splitlines(), before.splitlines()
    start = lines.index("  swept:")
    n = len(lines) - len(old_lines)
    assert lines[:start] + lines[start + n :] == old_lines
    found = params.load()
    assert list(found.configs) == [*old.configs, "swept"]
    assert found.configs["swept"] == old.configs["augmented"].model_copy(update=swept[2])
    assert found.model_copy(update={"configs": old.configs}) == old


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("3", "swept"), "no rank 3, only 1 to 2"),
        (("0", "swept"), "no rank 0"),
        (("1", "fine"), "a configuration fine already"),
        (("1", "without_flip"), "a configuration without_flip already"),
        (("1", "No Name"), "the new name must begin with a to z"),
    ],
)
def test_what_cannot_be_promoted_is_told_and_nothing_written(swept, monkeypatch, arguments, told):
    before = Path("params.yaml").read_text()
    with pytest.raises(SystemExit, match=f"error: .*{told}"):
        run(monkeypatch, *arguments)
    assert Path("params.yaml").read_text() == before


@pytest.mark.parametrize(
    "change", [("  seed: 0\n  # More", "  seed: 1\n  # More"), ("    lr:\n      log", "    jitter:\n      log")]
)
def test_a_table_of_another_sweep_is_not_taken(swept, monkeypatch, change):
    assert change[0] in Path("params.yaml").read_text()
    text = Path("params.yaml").read_text().replace(*change)
    Path("params.yaml").write_text(text)
    with pytest.raises(SystemExit, match="is not of the sweep in params"):
        run(monkeypatch, "1", "swept")


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nconfigs:\n  x: {lr: 1}\n# end\nb: 2\n",
        "configs:\n  x:\n    lr: 1\n    flip: true  # why\n\n# about b\nb: 2\n",
        "b: 2\nconfigs:\n  x: {lr: 1,\n    flip: true}\n",
        "b: 2\nconfigs:\n  x:\n    channels:\n      - 1\n      - 2\n",
    ],
)
def test_the_entry_comes_after_the_last_however_that_is_written(text):
    found = promote.with_entry(text, "new", {"lr": 1e-5, "flip": True, "name": "yes", "channels": [1, 2]})
    old, new = read(text), read(found)
    entry = new["configs"].pop("new")
    assert entry == {"lr": 1e-5, "flip": True, "name": "yes", "channels": [1, 2]}
    assert new == old
    start, n = found.splitlines().index("  new:"), len(found.splitlines()) - len(text.splitlines())
    assert found.splitlines()[:start] + found.splitlines()[start + n :] == text.splitlines()
