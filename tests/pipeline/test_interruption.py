"""Killed training resumes under DVC, and is bit-identical to training that was never killed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.clone import run
from tests.conftest import ROOT, Project
from tools.repro import recover

pytestmark = pytest.mark.slow

# Together these have all random numbers and all state: augmentation, dropout, momentum, the weights of the best epoch,
# in place and by autograd, and the final model.
STAGES = ("train@augmented", "train@convolutional", "refit@final")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The project's own pipeline on few images, with networks that take longer to save than to train."""
    folder = tmp_path_factory.mktemp("pipeline")
    project = Project(folder)
    project.params["train"] |= {"hidden": [512, 128, 32], "epochs": 12}
    project.params["configs"]["augmented"] |= {"early_stopping": 30}
    project.params["configs"]["convolutional"] |= {"channels": [24, 48, 96, 192]}
    project.write_params()
    for name in ("cifar2", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    (folder / "data/verified.json").write_text("{}")
    (folder / "data/models/selected").mkdir(parents=True)
    selected = {"name": "augmented", "configuration": project.params["configs"]["augmented"]}
    (folder / "data/models/selected/final.json").write_text(json.dumps(selected))
    run(folder, "git", "init", "--quiet")
    run(folder, "dvc", "init", "--quiet")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "--quiet", "-m", "clone")
    return folder


@pytest.fixture
def here(pipeline, tmp_path):
    return Path(shutil.copytree(pipeline, tmp_path / "here"))


@pytest.fixture(scope="module")
def uninterrupted(pipeline, tmp_path_factory):
    """The results of each stage without an interruption."""
    by_stage = {}
    for stage in STAGES:
        folder = Path(shutil.copytree(pipeline, tmp_path_factory.mktemp("uninterrupted") / "here"))
        assert start(folder, "dvc", "repro", "--single-item", stage).wait() == 0
        by_stage[stage] = results(folder)
    return by_stage


def start(folder, *command):
    """Start a command in a process group of its own, as a shell does."""
    variables = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "2",  # the seeds of train in two processes
    }
    with (folder / "log").open("ab") as output:
        return subprocess.Popen(
            command, cwd=folder, env=os.environ | variables, stdout=output, stderr=output, start_new_session=True
        )


def log(folder):
    return (folder / "log").read_text() if (folder / "log").exists() else ""


def results(folder):
    """The files that training writes, and dvc.lock."""
    files = [folder / "dvc.lock", *(path for kind in ("data/models", "metrics") for path in (folder / kind).rglob("*"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


def past(moment):
    return time.monotonic() > moment


def logged(folder, text, since=0):
    return text in log(folder)[since:]


def in_the_middle_of_a_checkpoint(folder):
    return any(name.endswith(".partial") for _, _, names in os.walk(folder / ".checkpoints") for name in names)


def wait_until(process, happened):
    while process.poll() is None and not happened():
        time.sleep(0.001)


def kill_when(process, happened):
    """Kill the process group at a moment; False if it had succeeded before."""
    wait_until(process, happened)
    if process.poll() is not None:
        assert process.returncode == 0
        return False
    os.killpg(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("stage", STAGES)
def test_training_killed_at_random_moments_is_bit_identical(here, uninterrupted, stage):
    rng = random.Random(stage)
    killed = 0
    while killed < 3:
        length = len(log(here))
        recover(here)  # as `make repro` does
        process = start(here, "dvc", "repro", "--force", "--single-item", stage)
        moment = (
            partial(past, time.monotonic() + rng.uniform(0, 10)),
            partial(logged, here, f"epoch {rng.randint(1, 9)}:", length),
            partial(in_the_middle_of_a_checkpoint, here),
        )[killed]
        killed += kill_when(process, moment)
    recover(here)
    # Forced, because DVC would only check out the outputs of a run that ended before it was killed.
    assert start(here, "dvc", "repro", "--force", "--single-item", stage).wait() == 0
    assert "resuming after epoch" in log(here)
    assert results(here) == uninterrupted[stage]
    assert not list((here / ".checkpoints").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_prints_one_line_and_keeps_the_checkpoint(here, uninterrupted, number):
    process = start(here, sys.executable, "stages/train.py", "augmented")
    wait_until(process, partial(logged, here, "epoch 3:"))
    process.send_signal(number)
    assert process.wait() == 128 + number
    assert f"interrupted by {number.name};" in log(here).splitlines()[-1]  # after half of an epoch's line, perhaps
    assert "Traceback" not in log(here)
    assert not in_the_middle_of_a_checkpoint(here)
    assert not (here / "data/models/train").exists()
    assert start(here, "dvc", "repro", "--single-item", "train@augmented").wait() == 0
    assert "resuming after epoch" in log(here)
    assert results(here) == uninterrupted["train@augmented"]


def test_ctrl_c_stops_dvc_and_its_stage(here):
    process = start(here, "dvc", "repro", "--single-item", "train@augmented")
    wait_until(process, partial(logged, here, "epoch 3:"))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() != 0
    assert "interrupted by SIGINT" in log(here)
    assert "Traceback" not in log(here)


def test_the_processes_of_the_seeds_end_with_the_stage(here):
    process = start(here, sys.executable, "stages/train.py", "augmented")
    wait_until(process, partial(logged, here, "epoch 3:"))
    others = psutil.Process(process.pid).children(recursive=True)
    assert len(others) > 2
    process.kill()
    assert psutil.wait_procs(others, 60)[1] == []


def test_a_second_run_leaves_the_training_of_the_first_alone(here, uninterrupted):
    """As after `dvc repro` was killed without its stage."""
    orphan = start(here, sys.executable, "stages/train.py", "augmented")
    wait_until(orphan, partial(logged, here, "epoch 3:"))
    orphan.send_signal(signal.SIGSTOP)
    assert start(here, sys.executable, "stages/train.py", "augmented").wait() == 1
    assert log(here).count("error: another process is training augmented here;") == 1
    orphan.send_signal(signal.SIGCONT)
    assert orphan.wait() == 0
    assert start(here, "dvc", "repro", "--single-item", "train@augmented").wait() == 0
    assert results(here) == uninterrupted["train@augmented"]
