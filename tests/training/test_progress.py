import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest
import yaml

from cifar2.training import progress
from cifar2.training.progress import Progress
from cifar2.training.record import Epoch, Resumed
from tests.clone import ROOT

EPOCH = Epoch(0, 3, 0.51234, 0.75, 0.6, 0.7)

# A training run that logs one epoch, then waits.  A stub replaces DVCLive: its import takes seconds.
RUN = """
import sys, threading
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace

root, name = sys.argv[1:]
sys.path.insert(0, root)
from cifar2.training.progress import Progress

class Live:
    def __init__(self, folder, **options):
        self.folder = Path(folder)
    def log_metric(self, *metric): ...
    def next_step(self):
        (self.folder / "metrics.json").write_text("{}")

sys.modules["dvclive.live"] = ModuleType("live")
sys.modules["dvclive.live"].Live = Live
values = {"seed": 0, "epoch": 3, "train_loss": 0.5, "train_accuracy": 0.7, "val_loss": None}
with Progress(name, 1) as progress:
    with redirect_stdout(None):
        progress.show(SimpleNamespace(**values, resumed=False, _asdict=lambda: values))
    print("live", flush=True)
    threading.Event().wait()
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_log_has_a_plain_line_for_each_epoch_with_the_time_left(capsys):
    with Progress("fine", 2) as progress:
        progress.show(EPOCH)
        progress.show(EPOCH._replace(val_loss=None, val_accuracy=None))
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"fine seed 0 epoch 3: train acc 0\.7500 loss 0\.5123, val acc 0\.7000 loss 0\.6000, \d\d:\d\d left", first
    )
    assert second == "fine seed 0 epoch 3: train acc 0.7500 loss 0.5123, 00:00 left"


@pytest.mark.parametrize(
    ("columns", "name", "shown"),
    [
        (80, "final without_label_smoothing", "1/360, 00:00 left, val acc 0.7000 loss 0.6000 |"),
        (80, "fine", "1/360, 00:00 left, val acc 0.7000 loss 0.6000 |"),
        (60, "augmented", "1/360, 00:00 left, val acc 0.7000 loss 0.6000"),
        (60, "without_label_smoothing", "1/360, 00:00 left, val acc 0.7000"),
    ],
)
def test_terminal_has_a_bar_with_the_accuracy(terminal, monkeypatch, capsys, columns, name, shown):
    monkeypatch.setattr(progress.time, "monotonic", lambda: 0)
    lines = terminal(columns)
    with Progress(name, 360) as bar:
        bar.show(EPOCH)
    last = lines()[-1]
    assert last.startswith(f"{name}: {shown}")
    assert len(last) <= columns
    assert capsys.readouterr().out == ""


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Progress, "_log", lambda *_: now.append(now.pop() + 40))  # as slow as an import
    return lambda seconds: now.append(now.pop() + seconds)


def show(bar, clock, seconds):
    for duration in seconds:
        clock(duration)
        bar.show(EPOCH)


def left(capsys):
    return [line.split(", ")[-1] for line in capsys.readouterr().out.splitlines()]


def test_time_left_is_the_mean_of_all_epochs_but_the_first(capsys, clock):
    with Progress("fine", 11) as bar:
        show(bar, clock, [5, 1, 3, 2])
    assert left(capsys) == ["00:50 left", "00:09 left", "00:16 left", "00:14 left"]


def test_resumed_epochs_are_counted_and_not_shown(capsys, clock):
    with Progress("fine", 8) as bar:
        for epoch in (1, 2, 3):
            bar.show(Resumed(*EPOCH._replace(epoch=epoch)))
        show(bar, clock, [4, 2])
    assert left(capsys) == ["00:16 left", "00:06 left"]


def test_dvc_finds_metrics_and_curves_during_a_run():
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


@pytest.mark.slow
def test_dvc_yaml_and_lock_of_the_pipeline_stay_as_they_are():
    subprocess.run(["dvc", "init", "--quiet", "--no-scm"], check=True)
    Path("dvc.yaml").write_text("stages: {}\n")
    with Progress("fine", 1) as progress:
        progress.show(EPOCH)
    assert Path("dvc.yaml").read_text() == "stages: {}\n"
    assert {p.name for p in Path().iterdir()} == {".dvc", ".dvcignore", "dvc.yaml"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, None])
def test_live_curves_are_removed_at_the_end_of_a_run(error):
    before = psutil.Process().children()  # of other tests
    with pytest.raises(error) if error else nullcontext(), Progress("fine", 2) as progress:
        progress.show(EPOCH)
        if error:
            raise error
    assert not list(Path().iterdir())
    assert psutil.Process().children() == before


@pytest.fixture
def start(request):
    """Start a training run in its own process group; it prints a line when its curves are on disk."""

    def run(name):
        command = [sys.executable, "-c", RUN, str(ROOT), name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        request.addfinalizer(process.wait)
        request.addfinalizer(process.kill)
        return process

    return run


def kill_group(process):
    os.killpg(process.pid, signal.SIGKILL)


def interrupt_group_and_kill(process):
    """Ctrl-C, and before the run has ended `kill -9`."""
    process.send_signal(signal.SIGSTOP)
    os.killpg(process.pid, signal.SIGINT)
    process.kill()


def wait_until(happened):
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("end", [subprocess.Popen.kill, kill_group, interrupt_group_and_kill])
def test_killed_run_leaves_nothing_behind(start, end):
    process = start("fine")
    assert process.stdout.readline() == "live\n"
    assert Path("dvclive/fine/metrics.json").exists()
    end(process)
    wait_until(lambda: not list(Path().iterdir()))


@pytest.mark.slow
def test_killed_run_does_not_remove_the_curves_of_others(start):
    killed, alive = start("fine"), start("fast")
    assert killed.stdout.readline() == alive.stdout.readline() == "live\n"
    killed.kill()
    wait_until(lambda: not Path("dvclive/fine").exists())
    with Progress("smooth", 1) as progress:
        progress.show(EPOCH)
        assert {path.name for path in Path("dvclive").iterdir()} == {"fast", "smooth"}
    assert Path("dvclive/fast/metrics.json").exists()


@pytest.mark.slow
def test_run_removes_what_a_power_cut_left(start):
    process = start("fine")
    assert process.stdout.readline() == "live\n"
    for member in [*psutil.Process(process.pid).children(), process]:
        member.kill()
    process.wait()
    assert Path("dvclive/fine").exists()
    Path("dvclive/plots").mkdir()  # the user's own DVCLive
    with Progress("fast", 1) as progress:
        progress.show(EPOCH)
        assert {path.name for path in Path("dvclive").iterdir()} == {"fast", "plots"}


@pytest.mark.slow
def test_killed_run_does_not_remove_the_curves_of_the_next(start):
    process = start("fine")
    assert process.stdout.readline() == "live\n"
    (remover,) = psutil.Process(process.pid).children()
    remover.suspend()
    process.kill()
    assert process.stdout.read() == "", "a pipe ends with the run"
    successor = start("fine")
    time.sleep(0.5)  # long enough for it to make its folder too early
    remover.resume()
    assert successor.stdout.readline() == "live\n"
    wait_until(lambda: ended(remover))
    assert Path("dvclive/fine/metrics.json").exists()


@pytest.mark.slow
def test_partial_files_are_ignored_by_git_and_dvc():
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, name)
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["dvc", "init", "--quiet"], check=True)
    for program in ("git", "dvc"):
        subprocess.run([program, "check-ignore", "metrics/train/.fine.json.partial"], check=True)
