import re
import shutil
import sys

import pytest

from cifar2 import errors
from tests.clone import run
from tests.conftest import ROOT
from tests.pipeline.test_workflow import differences
from tools.pull_request import changed_figures, check, figure, main, section

TABLE = """\
| Path        | Param   | base   | head   |
|-------------|---------|--------|--------|
| params.yaml | lr      | 0.1    | -0.2   |

"""
BASE, HEAD = "https://github.com/o/r/raw/aaa", "https://github.com/o/r/raw/bbb"


def test_a_table_follows_its_title_without_padding():
    squeezed = "| Path | Param | base | head |\n|---|---|---|---|\n| params.yaml | lr | 0.1 | -0.2 |"
    assert section("Parameters", TABLE) == f"### Parameters\n\n{squeezed}\n"


def test_a_table_without_rows_becomes_a_sentence():
    empty = "".join(TABLE.splitlines(keepends=True)[:2]) + "\n"
    assert section("Parameters", empty) == "### Parameters\n\nNo difference.\n"


def test_figures_are_listed_with_their_status():
    diff = "M\0metrics/figures/a.png\0A\0metrics/figures/b c.png\0"
    assert changed_figures(diff) == {"metrics/figures/a.png": "M", "metrics/figures/b c.png": "A"}
    assert changed_figures("") == {}


@pytest.mark.parametrize(
    ("status", "before", "after"),
    [("M", f"{BASE}/m/a.png", f"{HEAD}/m/a.png"), ("A", None, f"{HEAD}/m/a.png"), ("D", f"{BASE}/m/a.png", None)],
)
def test_a_figure_is_shown_before_and_after(status, before, after):
    lines = figure("m/a.png", status, BASE, HEAD).splitlines()
    assert lines[0] == "<code>m/a.png</code>"
    left, right = lines[-1].strip("|").split("|")
    for shown, url, word in ((left, before, "new"), (right, after, "gone")):
        assert shown.strip() == (f'<img src="{url}" width="400" alt="m/a.png">' if url else word)


def test_a_path_is_escaped_in_html():
    shown = figure('m/"><b>.png', "A", BASE, HEAD)
    assert f'{HEAD}/m/%22%3E%3Cb%3E.png" ' in shown
    assert "<b>" not in shown


@pytest.fixture
def origin(tmp_path):
    """A remote repository of two commits and their merge, with different parameters."""
    folder = tmp_path / "origin"
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    for lr in ("0.1", "0.2"):
        (folder / "params.yaml").write_text(f"lr: {lr}\n")
        run(folder, "git", "add", ".")
        run(folder, "git", "commit", "--quiet", "--message", lr)
    run(folder, "git", "switch", "--quiet", "--create", "merged", "HEAD~1")
    run(folder, "git", "merge", "--quiet", "--no-ff", "--message", "merge", "main")
    run(folder, "git", "config", "uploadpack.allowFilter", "true")
    return folder


def cloned(origin, *options):
    run(origin.parent, "git", "clone", "--quiet", *options, origin.as_uri(), "clone")
    return origin.parent / "clone"


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("--filter=blob:none", "HEAD~1 or HEAD: this partial clone lacks files of it"),
        ("--filter=tree:0", "HEAD~1 or HEAD: this partial clone lacks files of it"),
        ("--depth=1", "HEAD~1: this clone has no such commit"),
    ],
)
def test_an_incomplete_clone_is_one_line_with_a_fix(origin, monkeypatch, capsys, option, complaint):
    folder = cloned(origin, option)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["pull_request", "HEAD~1", "HEAD"])
    with pytest.raises(SystemExit) as stop:
        errors.run(main)
    assert stop.value.code.startswith(f"error: {complaint}")
    assert "\n" not in stop.value.code
    assert capsys.readouterr().out == ""
    (advice,) = re.findall("`(.*)`", stop.value.code)
    run(folder, "sh", "-c", advice)
    check("HEAD~1", "HEAD")
    # The clone stays complete:
    for lr in ("0.3", "0.4"):
        (origin / "params.yaml").write_text(f"lr: {lr}\n")
        run(origin, "git", "commit", "--quiet", "--all", "--message", lr)
    run(folder, "git", "pull", "--quiet")
    check("HEAD~1", "HEAD")


def test_an_incomplete_checkout_fails_in_ci_without_a_comment(origin, tmp_path):
    folder = cloned(origin, "--filter=blob:none")
    done, _, output = differences(folder, tmp_path)
    assert done.returncode != 0
    assert re.fullmatch("::error::base or head: this partial clone lacks .*\n", done.stdout)
    assert output == ""
