from pathlib import Path

import pytest

from cifar2 import errors, params
from tests.clone import read
from tests.conftest import ROOT
from tools import promote


@pytest.fixture
def swept(project):
    """The project's own params.yaml, as written by hand, and a table of two trials."""
    text = (ROOT / "params.yaml").read_text()
    Path("params.yaml").write_text(text)
    all_params = params.load()
    points = [promote.space.point(all_params.sweep.space, all_params.sweep.seed, n) for n in range(3)]
    names = list(points[0])
    lines = [f"{rank},{n},k{n},{','.join(str(points[n][name]) for name in names)}" for rank, n in ((1, 2), (2, 0))]
    Path("metrics").mkdir()
    Path("metrics/sweep.csv").write_text("\n".join([f"rank,trial,key,{','.join(names)}", *lines]) + "\n")
    return points


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["promote", *arguments])
    errors.run(promote.main)


def test_promote_adds_a_configuration_and_changes_nothing_else(swept, monkeypatch):
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
    ("arguments", "message"),
    [
        (("3", "swept"), "no rank 3, only 1 to 2"),
        (("0", "swept"), "no rank 0"),
        (("1", "fine"), "already has a configuration fine"),
        (("1", "without_flip"), "already has a configuration without_flip"),
        (("1", "No Name"), "the new name must begin with a to z"),
    ],
)
def test_a_refused_promotion_is_one_line(swept, monkeypatch, arguments, message):
    before = Path("params.yaml").read_text()
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        run(monkeypatch, *arguments)
    assert Path("params.yaml").read_text() == before


@pytest.mark.parametrize(
    "change", [("  seed: 0\n  # More", "  seed: 1\n  # More"), ("    lr:\n      log", "    jitter:\n      log")]
)
def test_a_table_of_another_sweep_is_refused(swept, monkeypatch, change):
    assert change[0] in Path("params.yaml").read_text()
    text = Path("params.yaml").read_text().replace(*change)
    Path("params.yaml").write_text(text)
    with pytest.raises(SystemExit, match="does not match sweep in params"):
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
def test_a_configuration_is_added_in_any_yaml_style(text):
    found = promote.with_entry(text, "new", {"lr": 1e-5, "flip": True, "name": "yes", "channels": [1, 2]})
    old, new = read(text), read(found)
    entry = new["configs"].pop("new")
    assert entry == {"lr": 1e-5, "flip": True, "name": "yes", "channels": [1, 2]}
    assert new == old
    start, n = found.splitlines().index("  new:"), len(found.splitlines()) - len(text.splitlines())
    assert found.splitlines()[:start] + found.splitlines()[start + n :] == text.splitlines()
