import pytest

from tools.pull_request import changed_figures, picture, section, squeezed

TABLE = """\
| Path        | Param   | base   | head   |
|-------------|---------|--------|--------|
| params.yaml | lr      | 0.1    | -0.2   |

"""
BASE, HEAD = "https://github.com/o/r/raw/aaa", "https://github.com/o/r/raw/bbb"


def test_a_table_loses_its_width_and_nothing_else():
    assert squeezed(TABLE) == "| Path | Param | base | head |\n|---|---|---|---|\n| params.yaml | lr | 0.1 | -0.2 |"


def test_a_table_stands_below_its_title():
    assert section("Parameters", TABLE) == f"### Parameters\n\n{squeezed(TABLE)}\n"


def test_a_table_without_rows_is_said_in_words():
    empty = "".join(TABLE.splitlines(keepends=True)[:2]) + "\n"
    assert section("Parameters", empty) == "### Parameters\n\nNo difference.\n"


def test_figures_are_told_with_what_happened_to_them():
    diff = "M\0metrics/figures/a.png\0A\0metrics/figures/b c.png\0"
    assert changed_figures(diff) == {"metrics/figures/a.png": "M", "metrics/figures/b c.png": "A"}
    assert changed_figures("") == {}


@pytest.mark.parametrize(
    ("status", "before", "after"),
    [("M", f"{BASE}/m/a.png", f"{HEAD}/m/a.png"), ("A", None, f"{HEAD}/m/a.png"), ("D", f"{BASE}/m/a.png", None)],
)
def test_a_figure_is_shown_beside_what_it_was(status, before, after):
    lines = picture("m/a.png", status, BASE, HEAD).splitlines()
    assert lines[0] == "<code>m/a.png</code>"
    left, right = lines[-1].strip("|").split("|")
    for shown, url, word in ((left, before, "new"), (right, after, "gone")):
        assert shown.strip() == (f'<img src="{url}" width="400" alt="m/a.png">' if url else word)


def test_a_path_cannot_end_the_picture_it_names():
    shown = picture('m/"><b>.png', "A", BASE, HEAD)
    assert f'{HEAD}/m/%22%3E%3Cb%3E.png" ' in shown
    assert "<b>" not in shown
