"""Live curves in TensorBoard: the copies of DVCLive's files, and the command."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from cifar2.training import progress
from tests.clone import installed, variables
from tools import tensorboard


@pytest.fixture
def live(tmp_path):
    """Append to a curve, as DVCLive does."""

    def write(curve, text, folder=tmp_path):
        path = folder / "dvclive" / curve
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(text)

    return write


@pytest.fixture
def copies(tmp_path):
    """Update the copies and return their points: by run, metric and event."""
    steps = tensorboard.mirror(tmp_path / "dvclive", tmp_path / "copy")

    def update():
        next(steps)
        shown = {}
        for folder in {path.parent for path in (tmp_path / "copy").rglob("*tfevents*")}:
            events = EventAccumulator(str(folder)).Reload()
            shown[str(folder.relative_to(tmp_path / "copy"))] = {
                tag: [(e.step, round(make_ndarray(e.tensor_proto).item(), 6)) for e in events.Tensors(tag)]
                for tag in events.Tags()["tensors"]
            }
        return shown

    return update


def remove(tmp_path, name):
    shutil.rmtree(tmp_path / "dvclive" / name)


def test_it_reads_what_training_writes():
    assert tensorboard.LIVE == progress.LIVE


def test_each_configuration_and_seed_becomes_a_run(live, copies):
    assert copies() == {}
    live("fine/plots/metrics/val_loss/seed0.tsv", "step\tseed0\n1\t0.5\n2\t0.25\n")
    live("fine/plots/metrics/train_loss/seed0.tsv", "step\tseed0\n1\t0.75\n")
    live("fine/plots/metrics/val_loss/seed1.tsv", "step\tseed1\n1\t1.5\n")
    live("final-linear/plots/metrics/train_loss/seed7.tsv", "step\tseed7\n1\tnan\n")
    live("plots/metrics/plots/metrics/own/a.tsv", "step\ta\n1\t1\n")  # the user's own DVCLive
    shown = copies()
    assert str(shown.pop("final-linear/seed7")) == "{'train_loss': [(1, nan)]}"
    assert shown == {
        "fine/seed0": {"val_loss": [(1, 0.5), (2, 0.25)], "train_loss": [(1, 0.75)]},
        "fine/seed1": {"val_loss": [(1, 1.5)]},
    }


def test_only_new_points_are_added(live, copies):
    curve = "fine/plots/metrics/val_loss/seed0.tsv"
    live(curve, "step\tseed0\n1\t0.5\n")
    copies()
    assert copies() == {"fine/seed0": {"val_loss": [(1, 0.5)]}}
    live(curve, "2\t0.25\n")
    live("fine/plots/metrics/val_loss/seed1.tsv", "step\tseed1\n1\t1.5\n")
    assert copies() == {"fine/seed0": {"val_loss": [(1, 0.5), (2, 0.25)]}, "fine/seed1": {"val_loss": [(1, 1.5)]}}


@pytest.mark.parametrize("part", ["", "ste", "step\tseed0", "step\tseed0\n", "step\tseed0\n1", "step\tseed0\n1\t0."])
def test_an_incomplete_line_is_left_for_later(live, copies, part):
    curve = "fine/plots/metrics/val_loss/seed0.tsv"
    live(curve, part)
    assert copies() == {}
    live(curve, "step\tseed0\n1\t0.5\n2\t0.25\n".removeprefix(part))
    assert copies() == {"fine/seed0": {"val_loss": [(1, 0.5), (2, 0.25)]}}


def test_the_last_points_of_a_removed_run_are_copied(live, copies, tmp_path):
    curve = "fine/plots/metrics/val_loss/seed0.tsv"
    live(curve, "step\tseed0\n1\t0.5\n")
    copies()
    live(curve, "2\t0.25\n")
    remove(tmp_path, "fine")
    expected = {"fine/seed0": {"val_loss": [(1, 0.5), (2, 0.25)]}}
    assert copies() == expected
    assert copies() == expected


@pytest.mark.parametrize("noticed", [True, False], ids=["after a pause", "at once"])
def test_a_configuration_that_starts_over_becomes_a_new_run(live, copies, tmp_path, noticed):
    curve = "fine/plots/metrics/val_loss/seed0.tsv"
    live(curve, "step\tseed0\n1\t0.5\n2\t0.25\n")
    live("fast/plots/metrics/val_loss/seed0.tsv", "step\tseed0\n1\t1.5\n")
    copies()
    for value in ("0.75", "0.875"):
        remove(tmp_path, "fine")
        if noticed:
            copies()
        live(curve, f"step\tseed0\n1\t{value}\n")
        live("fine/plots/metrics/val_loss/seed1.tsv", f"step\tseed1\n1\t{value}\n")
        copies()
    assert copies() == {
        "fine/seed0": {"val_loss": [(1, 0.5), (2, 0.25)]},
        "fine run 2/seed0": {"val_loss": [(1, 0.75)]},
        "fine run 2/seed1": {"val_loss": [(1, 0.75)]},
        "fine run 3/seed0": {"val_loss": [(1, 0.875)]},
        "fine run 3/seed1": {"val_loss": [(1, 0.875)]},
        "fast/seed0": {"val_loss": [(1, 1.5)]},
    }


def test_a_run_that_ended_holds_no_files(live, copies, tmp_path):
    before = psutil.Process().num_fds()
    live("fine/plots/metrics/val_loss/seed0.tsv", "step\tseed0\n1\t0.5\n")
    copies()
    remove(tmp_path, "fine")
    copies()
    assert psutil.Process().num_fds() == before


@pytest.fixture
def process(tmp_path):
    """`make tensorboard` in a terminal of its own."""
    folder = installed(tmp_path / "project")
    (tmp_path / "tmp").mkdir()
    started = subprocess.Popen(
        ["make", "tensorboard"],
        cwd=folder,
        env=variables() | {"TMPDIR": str(tmp_path / "tmp")},
        # What `nohup` runs ignores the end of the terminal, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield started
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGHUP])
def test_the_command_serves_curves_until_ctrl_c(process, live, tmp_path, end):
    line = process.stdout.readline()
    (address,) = re.findall(r"http://127\.0\.0\.1:\d+/", line)

    def points():
        query = urlencode({"run": "fine/seed0", "tag": "val_loss"})
        with suppress(OSError), urlopen(f"{address}data/plugin/scalars/scalars?{query}") as answer:  # 404 at first
            return [(step, value) for _, step, value in json.load(answer)]
        return []

    def wait_for(expected):
        deadline = time.monotonic() + 300
        while points() != expected:
            assert time.monotonic() < deadline, points()
            time.sleep(0.1)

    curve = "fine/plots/metrics/val_loss/seed0.tsv"
    live(curve, "step\tseed0\n1\t0.5\n", tmp_path / "project")
    wait_for([(1, 0.5)])
    live(curve, "2\t0.25\n", tmp_path / "project")
    wait_for([(1, 0.5), (2, 0.25)])
    os.killpg(process.pid, end)
    out, err = process.communicate(timeout=300)
    assert process.returncode == -end, "of make, to which a terminal sends the signal too"
    assert (out, err) == ("", "")
    assert not list((tmp_path / "tmp").iterdir())
