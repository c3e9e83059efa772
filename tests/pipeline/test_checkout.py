"""Each command runs the code of the checkout it is typed in, also with another checkout's environment."""

import ast
import json
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "stages").glob("*.py"))
TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("[a-z]*.py"))
# The command of the environment that these tests run in.
COMMAND = Path(sys.executable).with_name("cifar2")
# Ends a process as soon as it imports the package, with the name of the file that it imported.
STOP = "import os, sys\nsys.exit(os.path.realpath(__file__))\n"


@pytest.fixture
def copy(tmp_path):
    """A copied checkout, whose package only prints where it is."""
    for name in ("stages", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "cifar2/deploy").mkdir(parents=True)
    (tmp_path / "cifar2/__init__.py").write_text(STOP)
    shutil.copy(ROOT / "cifar2/deploy/cli.py", tmp_path / "cifar2/deploy")
    return tmp_path


def imported(folder, *command):
    """The package that a command imports when it is typed in ``folder``."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.stderr.strip()


@pytest.mark.parametrize(
    "command", [*(f"stages/{script}" for script in SCRIPTS), "-m stages.train", "-m tools.promote", "-m tools.repro"]
)
def test_a_stage_or_tool_runs_the_code_of_its_checkout(copy, command):
    assert imported(copy, sys.executable, *command.split()) == str(copy / "cifar2/__init__.py")


def test_a_stage_does_so_from_any_folder(copy):
    (copy / "data").mkdir()
    assert imported(copy / "data", sys.executable, "../stages/train.py") == str(copy / "cifar2/__init__.py")


@pytest.mark.slow
def test_predict_runs_the_code_of_the_current_checkout(copy):
    assert imported(copy, COMMAND, "predict", "a.png") == str(copy / "cifar2/__init__.py")
    assert imported(copy / "stages", COMMAND, "predict", "a.png") == str(copy / "cifar2/__init__.py")


@pytest.mark.slow
def test_predict_runs_the_installed_code_and_its_model_elsewhere(tmp_path):
    done = subprocess.run([COMMAND, "predict", "a.png"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    # Whether that model is there or not.
    assert re.fullmatch(r"error: (a\.png cannot|/.+/data/models/final\.safetensors is missing).+\n", done.stderr)


def without_environment(*command):
    """The exit code and the output of a command in a Python that has the standard library alone."""
    done = subprocess.run([sys.executable, "-S", *command], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("command", [*(f"stages/{s}" for s in SCRIPTS), *(f"-m tools.{t}" for t in TOOLS)])
def test_without_the_environment_there_is_one_line_that_says_so(command):
    assert without_environment(*command.split()) == (
        1,
        f"error: {sys.executable} is not the Python of the project's environment; "
        "activate it: `. .venv/bin/activate` (`make install` creates it)\n",
    )


@pytest.mark.parametrize("script", [*(f"stages/{s}" for s in SCRIPTS), *(f"tools/{t}.py" for t in TOOLS)])
def test_a_script_asked_for_help_does_nothing_else(script, tmp_path, monkeypatch, capsys):
    path = ROOT / script
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    out, _ = capsys.readouterr()
    assert stop.value.code == 0
    assert out.startswith(f"usage: {path.name} ")
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring.split()[:4] == out.partition("\n\n")[2].split()[:4]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_stage_refuses_unknown_arguments(script, run_stage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        run_stage(script, "--unknown", "train", "y")
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"{script}: error: unrecognized arguments: --unknown")
    assert not list(tmp_path.iterdir())


# What Python does with the project's .pth file where it is installed.
START = "import site, sys; site.addsitedir(sys.argv.pop(1)); "


@pytest.mark.slow
def test_dvc_finds_the_environments_python_without_activation(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\nno_scm = true\nanalytics = false\n")
    cmd = """python -c 'open("out", "w").write(__import__("sys").prefix)'"""
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"a": {"cmd": cmd, "outs": ["out"]}}}))
    dvc = [sys.executable, "-c", f"{START} from dvc.cli import main; sys.exit(main())", str(ROOT / "environment")]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run([*dvc, "repro", "--quiet"], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "out").read_text() == sys.prefix


@pytest.mark.parametrize("folders", [["/first", str(COMMAND.parent)], [str(COMMAND.parent), "/usr/bin"]])
def test_where_it_is_active_the_path_stays_as_it_is(folders):
    code = f"{START} import os; print(os.environ['PATH'])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "environment")],
        env={"PATH": ":".join(folders)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ":".join(folders)


def test_the_package_installs_it():
    """A .pth file directly in the environment's packages, which is what Python looks for."""
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["build-backend"]
    assert backend["data"] == {"purelib": "environment"}
    assert [path.name for path in (ROOT / "environment").iterdir()] == ["cifar2-path.pth"]
