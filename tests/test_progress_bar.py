import re

import pytest

from cifar2.progress_bar import progress_bar, steps


def test_a_log_has_a_line_at_each_tenth(capsys):
    assert list(steps(range(200), 200, "images")) == list(range(200))
    out, err = capsys.readouterr()
    assert [re.fullmatch(r"images: (\d+) %, 00:00 left", line)[1] for line in err.splitlines()] == [
        str(percent) for percent in range(10, 101, 10)
    ]
    assert out == ""


def test_few_steps_print_nothing(capsys):
    assert list(steps([1, 2], 2, "images")) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_line_has_the_note_and_the_time_left(capsys, monkeypatch):
    now = 100
    monkeypatch.setattr("time.monotonic", lambda: now)
    with progress_bar("sweep", 100, done=20) as show:
        now += 60
        show(29, "best 0.8")
        show(40, "best 0.9")
    assert capsys.readouterr().err == "sweep: 40 %, 03:00 left, best 0.9\n"


@pytest.mark.parametrize("columns", [60, 80])
def test_a_bar_shows_the_note_on_a_narrow_terminal(terminal, columns):
    lines = terminal(columns)
    with progress_bar("sweep", 48) as show:
        show(1, "best validation accuracy 0.8750")
    last = lines()[-1]
    assert re.match(r"sweep: 1/48, \d\d:\d\d left, best validation accuracy 0.8750", last)
    assert len(last) <= columns


def test_a_bar_abbreviates_bytes(terminal):
    lines = terminal(80)
    with progress_bar("archive", 170_498_071, unit_scale=True) as show:
        show(12_345_678)
    assert lines()[-1].startswith("archive: 12.3M/170M, ")
