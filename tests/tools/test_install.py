"""``make install`` with a stub for uv that installs one empty package, so that it takes no time."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.clone import ROOT, run
from tools import install

pytestmark = pytest.mark.slow

UV = f"""#!{sys.executable}
import pathlib, sys
with open("uv.log", "a") as log:
    print(*sys.argv[1:], file=log)
if sys.argv[1:] == ["cache", "dir"]:
    print("/nowhere/uv")
if "compile" in sys.argv:
    pathlib.Path("requirements-cpu.txt").touch()
if "--exact" in sys.argv:
    folder, = pathlib.Path(".venv/lib").glob("python*/site-packages")
    (folder / "demo-1.0.dist-info").mkdir(exist_ok=True)
"""
SOURCES = [install.LOCK, *install.SOURCES]
COPIED = ["Makefile", "tools/install.py", *SOURCES]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with the files that ``make install`` reads, and the stub on the PATH."""
    folder = tmp_path / "a project"
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uv").write_text(UV)
    (tmp_path / "bin/uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.chdir(folder)
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # of the make that runs the tests
        monkeypatch.delenv(name, raising=False)
    run(folder, "git", "init", "--quiet")
    return folder


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["make", *(arguments or ["install"])]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


def installed(*arguments: str) -> str:
    """Run ``make install``, or make with other ``arguments``; returns its stdout."""
    done = make(*arguments)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def syncs() -> int:
    """The number of installations."""
    return Path("uv.log").read_text().count("--exact") if Path("uv.log").exists() else 0


def package() -> Path:
    (folder,) = Path(".venv/lib").glob("python*/site-packages/demo-1.0.dist-info")
    return folder


@pytest.mark.parametrize(
    ("change", "n_syncs"),
    [
        (lambda: None, 1),
        (lambda: package().with_name("jupyter-1.0.dist-info").mkdir(), 1),
        (lambda: Path("requirements.txt").touch(), 1),
        (lambda: package().rmdir(), 2),
        (lambda: Path(".venv/installed").write_text(""), 2),
        *((partial(Path(name).write_text, "# changed"), 2) for name in SOURCES),
    ],
    ids=["nothing", "an additional package", "a new date", "a removed package", "an interruption", *SOURCES],
)
def test_an_incomplete_or_old_environment_is_installed_again(project, change, n_syncs):
    installed()
    change()
    installed()
    assert installed() == ""
    assert syncs() == n_syncs
    assert package().exists()


def last_groups() -> set[str]:
    """The groups of the last installation."""
    *_, line = (line for line in Path("uv.log").read_text().splitlines() if "--exact" in line)
    return set(re.findall(r"--group \S+:(\S+)", line))


def test_a_group_joins_those_installed_before(project):
    installed()
    assert last_groups() == {"pipeline"}
    installed("install-sweep")
    assert last_groups() == {"pipeline", "sweep"}
    installed()
    installed("install-sweep")
    assert syncs() == 2, "nothing was missing"


def test_the_cpu_build_of_torch_is_locked_and_stays(project):
    installed("install", "TORCH=cpu")
    locked, *_ = (line for line in Path("uv.log").read_text().splitlines() if "pip compile" in line)
    assert "--torch-backend cpu" in locked
    installed("install-test")
    last = Path("uv.log").read_text().splitlines()[-2]
    assert f"--constraint {install.CPU_LOCK} " in last
    assert last.endswith(":test --torch-backend cpu")


def test_cpu_wheels_out_of_reach_are_one_line(project, tmp_path):
    installed()
    fails = "if 'compile' in sys.argv: sys.exit('error: failed\\n  cause: no route to host')\n"
    (tmp_path / "bin/uv").write_text(UV.replace("if ", fails + "if ", 1))
    done = make("install", "TORCH=cpu")
    line = "error: no requirements-cpu.txt, as PyTorch's CPU wheels are out of reach (no route to host); "
    assert done.stderr.splitlines()[0] == f"{line}leave out TORCH=cpu"
    assert installed() == ""
    assert syncs() == 1, "the environment is as before"


def test_a_moved_folder_gets_a_new_environment(project, monkeypatch):
    installed()
    old = Path(".venv/pyvenv.cfg").read_text()
    moved = project.rename(project.with_name("another name"))
    monkeypatch.chdir(moved)
    assert installed() == ".venv is created again: the folder was moved\n"
    assert str(moved) in Path(".venv/bin/activate").read_text()
    assert Path(".venv/pyvenv.cfg").read_text() != old
    assert installed() == ""


def test_a_missing_python_is_replaced(project):
    installed()
    for link in Path(".venv/bin").glob("python*"):
        link.unlink()
        link.symlink_to("/usr/lib/gone/python")
    assert installed() == ".venv is created again: its Python is gone\n"
    subprocess.run([".venv/bin/python", "-c", ""], check=True)


def test_a_failed_installation_is_not_complete(project, tmp_path):
    uv = tmp_path / "bin/uv"
    uv.write_text(UV + "    sys.exit('no space left')\n")
    done = make()
    assert done.returncode != 0
    assert done.stderr.splitlines()[:2] == [
        "no space left",
        "error: uv failed, see above; `make install` continues where it ended",
    ]
    uv.write_text(UV)
    installed()
    assert syncs() == 2


def test_the_environment_does_not_redirect_pip(project, tmp_path):
    (tmp_path / "bin/uv").write_text("#!/bin/sh\n[ $1 = pip ] && env\ntrue\n")
    done = make(PIP_USER="1", PIP_TARGET="a", PIP_INDEX_URL="b")
    assert "PIP_TARGET" not in done.stdout
    assert "PIP_INDEX_URL" in done.stdout
    assert "PIP_USER=0\n" in done.stdout


@pytest.mark.parametrize("writable", [True, False])
def test_uv_works_without_a_writable_home(project, monkeypatch, writable):
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((str(path), mode)) or writable)
    assert install.cache_is_writable() == writable
    assert asked == [("/", os.W_OK)], "the folder that exists"


def test_a_folder_without_git_history_is_one_line(project):
    shutil.rmtree(".git")
    done = make(GIT_CEILING_DIRECTORIES=str(project.parent))
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        f"error: {project} is not a git repository (a downloaded ZIP file has no history), and DVC needs one; "
        "use git clone, or run here: git init && git add . && git commit -m CIFAR-2"
    )
    assert not Path(".venv").exists()


def test_a_checkout_of_another_user_is_one_line(project):
    done = make(GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert done.stderr.splitlines()[0] == (
        f"error: {project} belongs to another user, so git does not read it; "
        f"if you trust it, run: git config --global --add safe.directory '{project}'"
    )


def test_an_old_python_is_one_line(project):
    Path("old").write_text("#!/bin/sh\nexit 1")
    Path("old").chmod(0o755)
    done = subprocess.run(["make", "install", "PYTHON=./old"], capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        "error: ./old is no Python 3.11 or newer; name one: make install PYTHON=python3.12"
    )


def test_variables_of_other_programs_are_ignored(project):
    """node-gyp reads JOBS=max and PYTHON=python2."""
    environment = os.environ | {"JOBS": "max", "PYTHON": "python2", "UPGRADE": "b"}
    command = ["make", "--dry-run", "repro", "lock"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "python -m tools.repro \n" in shown
    assert "python2" not in shown
    named = subprocess.run(["make", "--dry-run", "repro", "JOBS=3"], capture_output=True, text=True, check=True).stdout
    assert "python -m tools.repro --jobs '3'\n" in named


def test_uv_sync_leaves_the_environment_alone(tmp_path):
    """Without the groups that it would not install by default."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    done = run(tmp_path, "uv", "sync", check=False)
    assert done.returncode == 2
    assert done.stderr.split() == f"error: The project is marked as unmanaged: {tmp_path}".split()
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]


def test_uv_run_uses_the_environment_unchanged(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    shown = run(tmp_path, "uv", "run", "python", "-c", "import sys; print(sys.prefix)", VIRTUAL_ENV="")
    assert shown.stdout == f"{tmp_path / '.venv'}\n"
    assert not (tmp_path / "uv.lock").exists()
