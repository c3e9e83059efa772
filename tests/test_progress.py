import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cifar2.progress import Progress, steps
from cifar2.training import Epoch

EPOCH = Epoch(0, 3, 0.51234, 0.75, 0.6, 0.7)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_log_gets_one_plain_line_an_epoch_with_the_time_left(capsys):
    with Progress("fine", 2) as progress:
        progress.show(EPOCH)
        progress.show(EPOCH._replace(val_loss=None, val_accuracy=None))
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"fine seed 0 epoch 3: train loss 0\.5123 acc 0\.7500, val loss 0\.6000 acc 0\.7000, \d+ s left", first
    )
    assert second == "fine seed 0 epoch 3: train loss 0.5123 acc 0.7500, 0 s left"


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("fine", 2) as progress:
        progress.show(EPOCH)
    assert "fine:" in terminal.getvalue()
    assert "1/2" in terminal.getvalue()
    assert "val loss 0.6000" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_metrics_and_curves_can_be_followed_by_dvc_while_a_run_goes_on():
    with Progress("final fine", 3) as progress:
        for seed, epoch in ((0, 1), (0, 2), (1, 1)):
            progress.show(EPOCH._replace(seed=seed, epoch=epoch, val_loss=epoch / 10))
        folder = Path("dvclive/final-fine")
        listed = yaml.safe_load((folder / "dvc.yaml").read_text())
        latest = json.loads((folder / listed["metrics"][0]).read_text())
        assert latest["val_loss"] == {"seed0": 0.2, "seed1": 0.1}
        ((plots, axes),) = listed["plots"][0].items()
        assert axes == {"x": "step"}
        curve = (folder / plots / "val_loss/seed0.tsv").read_text().splitlines()
        assert curve == ["step\tseed0", "1\t0.1", "2\t0.2"]


def test_the_pipelines_own_dvc_yaml_and_lock_stay_as_they_are():
    subprocess.run(["dvc", "init", "--quiet", "--no-scm"], check=True)
    Path("dvc.yaml").write_text("stages: {}\n")
    with Progress("fine", 1) as progress:
        progress.show(EPOCH)
    assert Path("dvc.yaml").read_text() == "stages: {}\n"
    assert {p.name for p in Path().iterdir()} == {".dvc", ".dvcignore", "dvc.yaml", "dvclive"}


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt, None])
def test_nothing_of_that_is_left_however_the_run_ends(stop):
    def run():
        with Progress("fine", 2) as progress:
            progress.show(EPOCH)
            if stop:
                raise stop

    if stop:
        with pytest.raises(stop):
            run()
    else:
        run()
    assert not list(Path("dvclive").iterdir())


def test_going_through_many_items_tells_each_tenth_in_a_log(capsys):
    assert list(steps(range(200), "pictures")) == list(range(200))
    out, err = capsys.readouterr()
    assert err.splitlines() == [f"pictures: {tenth}0 %" for tenth in range(1, 11)]
    assert out == ""


def test_going_through_few_tells_nothing(capsys):
    assert list(steps([1, 2], "pictures")) == [1, 2]
    assert capsys.readouterr().err == ""


def test_going_through_items_is_a_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    list(steps(range(200), "pictures"))
    assert "pictures: 100%" in terminal.getvalue()
    assert "200/200" in terminal.getvalue()
