"""The sweep on Ray: on this machine, on a cluster of two nodes, and with processes of either killed."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import joblib
import psutil
import pytest
import torch

from benchmarks import scale
from cifar2.errors import UserError
from cifar2.params import Asha
from cifar2.sweep import cluster
from tests.conftest import ROOT
from tests.pipeline.test_interruption import kill_when, log, wait_until

pytestmark = pytest.mark.slow

# A trial takes about half a second; with several per core, some are running and some are waiting.
CORES = joblib.cpu_count()
N, EPOCHS = 7 * max(2, CORES), 120


@pytest.fixture(autouse=True)
def no_other_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def swept(project):
    project.params["configs"]["augmented"] |= {"epochs": EPOCHS}
    project.params["sweep"] |= {"trials": N, "space": {"lr": {"log_uniform": [1e-6, 1e-2]}}}
    project.write_params()
    return project


def start(folder, **variables):
    with (folder / "log").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "stages/sweep.py")],
            cwd=folder,
            env=os.environ | variables,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def finished(folder, n):
    time.sleep(0.05)  # without a pause, polling would occupy a core
    return len(finished_files(folder)) >= n


def finished_files(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / ".sweep").glob("*.json")}


def results(folder):
    return {path.name: path.read_bytes() for path in (folder / "metrics").rglob("*.*")}


def forget(folder):
    for path in [*(folder / ".sweep").iterdir(), *(folder / "metrics").rglob("*.*")]:
        path.unlink()


def kill_a_worker(driver):
    """Kill a Ray worker that is running a trial; returns whether there was one."""
    for child in psutil.Process(driver.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.cmdline()[:1] == ["ray::_Inner.train"]:
                child.kill()
                return True
    return False


@pytest.fixture
def by_hand(swept, run_stage, once, monkeypatch):
    """The sweep's results without Ray, one trial after another."""

    def run(keys, trial, resources, asha, finished, best):
        for key in keys:
            *_, last = trial(key)
            finished(key, last.outcome)

    def do():
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)  # two would mostly wait for each other
        with monkeypatch.context() as patch:
            patch.setattr(cluster, "run", run)
            run_stage("sweep.py")
        torch.set_num_threads(n_threads)

    once("swept_by_hand", swept, do)
    found = results(swept.folder)
    forget(swept.folder)
    return found


@pytest.mark.figures
def test_killed_processes_lose_and_repeat_no_finished_trial(swept, by_hand):
    folder = swept.folder
    with scale.cluster(2) as (environment, (head, node)):
        # Another token is refused.
        assert start(folder, **environment | {"RAY_AUTH_TOKEN": "b" * 32}).wait() == 1
        assert log(folder).splitlines()[-1].startswith("error: no Ray at RAY_ADDRESS=")
        assert "Traceback" not in log(folder)

        # The sweep survives the loss of a node,
        driver = start(folder, **environment)
        wait_until(driver, partial(finished, folder, 4))
        before = finished_files(folder)
        assert len(before) < N
        scale.kill(node)
        assert driver.wait() == 0
        assert before.items() < finished_files(folder).items()
        assert results(folder) == by_hand

        # but not of the head.
        forget(folder)
        driver = start(folder, **environment)
        wait_until(driver, partial(finished, folder, 3))
        assert driver.poll() is None
        scale.kill(head)
        assert driver.wait(120) != 0
    before = finished_files(folder)
    assert 3 <= len(before) < N

    # The rest runs without a cluster, until the driver is killed.
    assert kill_when(start(folder), partial(finished, folder, len(before) + 2))
    assert f"{N} trials, {N - len(before)} of them new" in log(folder)
    assert before.items() < finished_files(folder).items()
    before = finished_files(folder)
    assert len(before) < N
    assert not results(folder)

    # The next sweep runs the rest; a killed worker's trial runs again.
    driver = start(folder)
    wait_until(driver, lambda: finished(folder, len(before) + 1) and kill_a_worker(driver))
    assert driver.poll() is None
    assert driver.wait() == 0
    assert f"{N} trials, {N - len(before)} of them new" in log(folder)
    assert before.items() < finished_files(folder).items()
    assert results(folder) == by_hand


def test_workers_run_the_code_of_the_checkout(project, tmp_path):
    """Even if the environment belongs to another checkout."""
    said, checkout = tmp_path / "said", tmp_path / "checkout"
    for name in ("cifar2", "stages"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (checkout / "cifar2/sweep/trial.py").open("a") as file:
        file.write(f"import os\nopen({str(said)!r}, 'a').write(f'{{os.getpid()}}\\n')\n")
    done = subprocess.run([sys.executable, checkout / "stages/sweep.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(set(said.read_text().split())) > 1, "the driver and a worker"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_sweep_with_one_line(swept, number):
    driver = start(swept.folder)
    wait_until(driver, partial(finished, swept.folder, 1))
    driver.send_signal(number)
    assert driver.wait() == 128 + number
    assert f"interrupted by {number.name}" in log(swept.folder)
    assert "Traceback" not in log(swept.folder)
    assert not results(swept.folder)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://127.0.0.1:10001", "RAY_ADDRESS=auto"),
        ("127.0.0.1:1", "no Ray at RAY_ADDRESS="),
        ("nowhere", "Invalid address format"),
    ],
)
def test_an_unreachable_address_is_one_line(swept, address, message):
    assert start(swept.folder, RAY_ADDRESS=address).wait() == 1
    line = log(swept.folder).splitlines()[-1]
    assert line.startswith("error: ")
    assert message in line
    assert "token" not in line
    assert "Traceback" not in log(swept.folder)


def test_a_cluster_that_refuses_advises_a_token(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")

    def refuse(*_, **__):
        raise ConnectionError("Failed to connect to Ray cluster at 127.0.0.1:1")

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1; a cluster with a token needs RAY_AUTH_MODE=token"):
        cluster.run(["a"], iter, {"cpu": 1}, None, print)


SWEEP = """
import sys
from cifar2.sweep import cluster
def trial(key):
    return iter([cluster.Report(0.5, {"python": sys.executable}, True)])
cluster.run(["a"], trial, {"cpu": 1}, None, lambda key, outcome: print(outcome["python"]))
"""


def test_the_users_folders_do_not_matter(tmp_path):
    """The path of the environment has a space, TMPDIR is too long for a socket, and the home directory is a file."""
    environment = tmp_path / "with a space"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python3.*/site-packages")
    (packages / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}")
    temporary = tmp_path / ("long" * 30)
    temporary.mkdir()
    (tmp_path / "home").touch()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [environment / "bin/python", "-c", SWEEP],
        env=variables | {"TMPDIR": str(temporary), "HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert f"{environment / 'bin/python'}" in done.stdout.splitlines(), done.stderr
    assert list(temporary.iterdir()) == []


def test_a_sweep_leaves_no_files_of_ray(tmp_path, monkeypatch):
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # short, for the sockets in it
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    cluster.run(["a"], lambda _: iter([cluster.Report(0.5, {}, True)]), {"cpu": 1}, None, lambda *_: None)
    folder.rmdir()


def test_failed_trials_are_reported_and_others_kept(tmp_path):
    kept = {}
    tries = tmp_path / "tries"

    def trial(key):
        if key == "bad":
            with tries.open("a") as file:
                file.write("x")
            raise ValueError("no such thing")
        yield cluster.Report(0.5, {"val_accuracy": 0.5}, True)

    with pytest.raises(UserError, match=r"1 of 3 trials failed 3 times \(.*no such thing\)"):
        cluster.run(["a", "bad", "b"], trial, {"cpu": 1}, None, kept.__setitem__)
    assert set(kept) == {"a", "b"}
    assert tries.read_text() == "xxx"


def test_a_process_lost_between_two_trials_costs_no_trial(tmp_path):
    kept = {}
    lost = tmp_path / "lost"

    def trial(key):
        if key == "b" and not lost.exists():
            lost.touch()
            os._exit(1)
        return iter([cluster.Report(0.5, {"val_accuracy": 0.5}, True)])

    cluster.run(["a", "b", "c"], trial, {"cpu": CORES}, None, kept.__setitem__)
    assert lost.exists()
    assert set(kept) == {"a", "b", "c"}


def test_asha_stops_trials_with_lower_accuracy_early():
    epochs = 9
    kept = {}

    def trial(key):
        for epoch in range(1, epochs + 1):
            yield cluster.Report(float(key), {"stopped": epoch}, False)
        yield cluster.Report(float(key), {"stopped": None}, True)

    keys = ["0.9", "0.8", "0.7", "0.6", "0.5", "0.4"]
    # One after another, the best first.
    cluster.run(keys, trial, {"cpu": CORES}, Asha(grace_epochs=2, reduction_factor=3), kept.__setitem__)
    assert kept["0.9"] == {"stopped": None}
    assert kept["0.4"] == {"stopped": 2}
