import fcntl
import re
import subprocess
import threading
from pathlib import Path

import pytest

from cifar2.errors import UserError
from tests.clone import ROOT
from tools.repro import main, recover, shares

FIVE = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("stale", "jobs", "cores", "side_by_side", "threads"),
    [
        (FIVE, 2, 2, FIVE[:4], 1),  # the fifth runs afterwards, on both cores
        (FIVE, 5, 5, FIVE, 1),
        (FIVE, 16, 16, FIVE, 3),
        (FIVE, 4, 2, FIVE[:4], 1),
        (FIVE, 1, 8, [], 8),
        (FIVE[:1], 2, 2, [], 2),
        ([], 2, 2, [], 2),
    ],
)
def test_the_stages_share_the_cores_evenly(stale, jobs, cores, side_by_side, threads):
    assert shares(stale, jobs, cores) == (side_by_side, threads)


@pytest.mark.parametrize("jobs", ["0", "-1", "many"])
def test_an_invalid_number_of_jobs_is_one_line(monkeypatch, capsys, jobs):
    monkeypatch.setattr("sys.argv", ["repro", f"--jobs={jobs}"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err.endswith(f"error: argument --jobs: {jobs} is not a number from 1\n")


def test_the_default_is_the_cores_available_to_the_process(monkeypatch, capsys):
    """In a container or under taskset they are fewer than the machine has."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    monkeypatch.setattr("sys.argv", ["repro", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert "configurations trained in parallel (1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "misspelled", "message"),
    [
        ("configs:", "config:", "has no key config; did you mean configs?"),
        ("input:", "inputs:", "configs.precise has no key inputs; did you mean input?"),
    ],
)
def test_a_misspelled_key_is_reported_before_dvc_runs(tmp_path, monkeypatch, key, misspelled, message):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()
    Path("params.yaml").write_text(re.sub(rf"^( *){key}", rf"\1{misspelled}", text, count=1, flags=re.MULTILINE))
    monkeypatch.setattr("sys.argv", ["repro", "--jobs=1"])
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("DVC was started"))
    with pytest.raises(UserError, match=re.escape(f"params.yaml: {message}")):
        main()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A DVC project with one stage."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["dvc", "init", "--quiet", "--no-scm"], check=True)
    Path("dvc.yaml").write_text("stages: {a: {cmd: echo > a, outs: [a]}}")
    return tmp_path


@pytest.mark.parametrize("content", ["", "\0" * 100])
def test_dvc_works_again_after_a_power_cut(project, capsys, content):
    Path(".dvc/tmp/rwlock").write_text(content)
    assert subprocess.run(["dvc", "repro"], capture_output=True).returncode != 0
    recover(project)
    assert capsys.readouterr().out == f"removed {project}/.dvc/tmp/rwlock, which an interrupted DVC left unreadable\n"
    subprocess.run(["dvc", "repro"], check=True)


def test_the_list_of_a_running_dvc_stays(project):
    """DVC holds a lock while it writes the file, which is empty for a moment."""
    busy = Path(".dvc/tmp/rwlock")
    busy.write_text("")
    with Path(".dvc/tmp/rwlock.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = threading.Thread(target=recover, args=[project])
        other.start()
        other.join(0.2)
        assert other.is_alive()
        busy.write_text("{}")
    other.join()
    assert busy.read_text() == "{}"


def test_a_project_without_the_list_is_unchanged(project):
    recover(project)
    assert not Path(".dvc/tmp/rwlock").exists()
