import fcntl
import queue
import re
import subprocess
import threading
from pathlib import Path

import pytest

from cifar2 import files, params
from cifar2.errors import UserError
from tests.clone import ROOT
from tools import repro
from tools.repro import Ran, main, recover

DOT = """strict digraph {
"prepare";
"prepare" -> "train@fine";
"train@fine" -> "select";
"prepare" -> "features";
"features" -> "select";
"extended/dvc.yaml:train@longer";
"select" -> "extended/dvc.yaml:evaluate@cnn";
}
"""
STAGES = {"prepare": set(), "train@fine": {"prepare"}, "features": {"prepare"}, "select": {"train@fine", "features"}}
WORK = {"prepare": 1.0, "train@fine": 8.0, "features": 2.0, "select": 1.0}


def test_the_graph_holds_the_stages_of_this_pipeline():
    assert repro.graph(DOT) == STAGES


def test_a_changed_stage_takes_all_behind_it_with_it():
    assert repro.to_run(STAGES, ["features"]) == {"features": set(), "select": {"features"}}
    assert repro.to_run(STAGES, ["prepare"]) == STAGES
    assert repro.to_run(STAGES, []) == {}


def test_the_work_is_that_of_the_last_run_or_a_guess():
    settings = params.load(ROOT / "params.yaml")
    work = repro.works(
        ["train@fine", "train@augmented", "train@smooth", "export"], settings, {"train@smooth": Ran(3, 1.5, 4.0)}
    )
    assert work["train@augmented"] == 2 * work["train@fine"] > work["export"] > 0
    assert work["train@smooth"] == 7.5


def test_the_longest_way_to_the_end_is_found():
    assert repro.ways(STAGES, WORK) == {"prepare": 10, "train@fine": 9, "features": 3, "select": 1}


@pytest.fixture
def start():
    """A function that starts stages which run until the test ends them, or is over."""
    machines = []

    def start(*arguments, **options):
        machines.append(Machine(*arguments, **options))
        return machines[-1]

    yield start
    for machine in machines:
        for stage in machine.ends:
            machine.end(stage, success=False)


class Machine:
    """Stages that run until a test ends them."""

    def __init__(self, work, cores, jobs=16, stages=None):
        self.started: queue.Queue[tuple[str, int]] = queue.Queue()
        self.ends = {stage: queue.Queue() for stage in work}
        arguments = stages or {stage: set() for stage in work}, work, cores, jobs, self.run
        self.failed = []
        self.thread = threading.Thread(target=lambda: self.failed.extend(repro.run_all(*arguments)))
        self.thread.start()

    def run(self, stage, cores):
        self.started.put((stage, cores))
        return self.ends[stage].get()

    def next(self, n=1):
        return {self.started.get(timeout=60) for _ in range(n)}

    def end(self, stage, success=True):
        self.ends[stage].put(success)

    def finish(self):
        """The names of the failed stages, and the number of those that started after all."""
        self.thread.join(60)
        return self.failed, self.started.qsize()


def test_a_stage_starts_when_those_before_it_have_ended(start):
    machine = start(WORK, 4, stages=STAGES)
    assert machine.next() == {("prepare", 1)}
    machine.end("prepare")
    assert {stage for stage, _ in machine.next(2)} == {"train@fine", "features"}
    machine.end("features")
    machine.end("train@fine")
    assert {stage for stage, _ in machine.next()} == {"select"}
    machine.end("select")
    assert machine.finish() == ([], 0)


def test_the_longest_starts_first_and_the_next_on_a_free_core(start):
    machine = start({"a": 10, "b": 30, "c": 20}, 2)
    assert machine.next(2) == {("b", 1), ("c", 1)}
    machine.end("c")
    assert machine.next() == {("a", 1)}
    machine.end("a")
    machine.end("b")
    assert machine.finish() == ([], 0)


def test_of_equal_ways_the_one_that_most_wait_for_starts_first(start):
    stages = {"a": set(), "b": set(), "after a": {"a"}, "after b": {"b"}, "also after b": {"b"}}
    machine = start(dict.fromkeys(stages, 1), 1, stages=stages)
    assert machine.next() == {("b", 1)}
    machine.end("b", success=False)
    assert machine.finish() == (["b"], 0)


@pytest.mark.parametrize(
    ("work", "cores", "jobs", "started"),
    [
        ({"a": 30, "b": 10, "c": 10}, 5, 16, {("a", 3), ("b", 1), ("c", 1)}),
        ({"a": 10}, 4, 16, {("a", 4)}),
        ({"a": 10, "b": 10}, 8, 1, {("a", 8)}),
        ({"a": 10, "b": 9, "c": 8}, 3, 2, {("a", 2), ("b", 1)}),
    ],
)
def test_the_cores_are_shared_out_by_the_work(start, work, cores, jobs, started):
    machine = start(work, cores, jobs)
    assert machine.next(len(started)) == started
    for stage in work:
        machine.end(stage)
    assert machine.finish() == ([], len(work) - len(started))


def test_after_a_failure_no_other_stage_starts(start):
    machine = start({"a": 3, "b": 2}, 1)
    machine.next()
    machine.end("a", success=False)
    assert machine.finish() == (["a"], 0)


def test_after_a_failure_the_running_stages_end(start):
    machine = start({"a": 3, "b": 2, "c": 1}, 2, stages={"a": set(), "b": set(), "c": {"a"}})
    machine.next(2)
    machine.end("a", success=False)
    machine.thread.join(0.2)
    assert machine.thread.is_alive()
    machine.end("b")
    assert machine.finish() == (["a"], 0)


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
    assert "stages at once (1)" in capsys.readouterr().out


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
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("DVC was started"))
    with pytest.raises(UserError, match=re.escape(f"params.yaml: {message}")):
        main()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A DVC project with one stage."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["dvc", "init", "--quiet", "--no-scm"], check=True)
    Path("dvc.yaml").write_text("stages: {a: {cmd: echo > a, outs: [a]}}")
    return tmp_path


@pytest.mark.slow
def test_a_run_notes_when_each_stage_ran(project, monkeypatch):
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.setattr("sys.argv", ["repro", "--jobs=2"])
    main()
    ((stage, ran),) = files.read_json(repro.TIMELINE).items()
    assert stage == "a"
    assert 0 < Ran(*ran).start < Ran(*ran).end
    assert Path("a").read_text() == "\n"


@pytest.mark.slow
def test_a_run_with_nothing_to_do_says_so(project, monkeypatch, capsys):
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.setattr("sys.argv", ["repro", "--jobs=2"])
    main()
    capsys.readouterr()
    main()
    assert capsys.readouterr().out == "Nothing has changed: all stages are up to date.\n"


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "\0" * 100])
def test_dvc_works_again_after_a_power_cut(project, capsys, content):
    Path(".dvc/tmp/rwlock").write_text(content)
    assert subprocess.run(["dvc", "repro"], capture_output=True).returncode != 0
    recover(project)
    assert capsys.readouterr().out == f"removed {project}/.dvc/tmp/rwlock, which an interrupted DVC left unreadable\n"
    subprocess.run(["dvc", "repro"], check=True)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_project_without_the_list_is_unchanged(project):
    recover(project)
    assert not Path(".dvc/tmp/rwlock").exists()
