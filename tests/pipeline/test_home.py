"""The project writes nothing into the home directory: no telemetry, no caches."""

import re
import subprocess
import sys

import pytest
from dvc import analytics
from PIL import Image

from tests.clone import ROOT, run
from tests.conftest import random_split

# Code starts with this: it imports modules from the folder that is the first argument.
IN_ROOT = """
import sys
root = sys.argv.pop(1)
sys.path.insert(0, root)
"""
# The stage `prepare`, with random images instead of the download.
PREPARE = f"""{IN_ROOT}
import runpy
from tests.stages import test_prepare
test_prepare.cifar10.load = lambda *_: test_prepare.DATA
runpy.run_path(root + "/stages/prepare.py", run_name="__main__")
"""
# Every stage with its arguments.
STAGES = {
    "check_params": [],
    "prepare": [],
    "verify": [],
    "features": [],
    "train": ["precise"],
    "select_model": [],
    "refit": [],
    "evaluate": ["final"],
    "export": [],
    "report": [],
    "ablate": [],
    "sweep": [],
}
# Not `readme`: it runs the commands of the pipeline in clones, which takes minutes.
TOOLS = {"compare": [], "promote": ["0", "best"], "pull_request": ["HEAD", "HEAD"], "repro": [], "stale": []}


def written(folder):
    return [str(path.relative_to(folder)) for path in folder.rglob("*")]


def python(*arguments):
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_importing_the_libraries_leaves_the_home_empty(home):
    done = python("-c", IN_ROOT + "import cifar2.figures.canvas, onnxruntime", ROOT)
    assert written(home) == []
    assert done.stderr == "", "no warning"


def test_no_module_imports_matplotlib_without_the_canvas():
    """A top-level import elsewhere would run without the temporary folder."""
    scripts = [path for folder in ("cifar2", "stages", "tools") for path in (ROOT / folder).rglob("*.py")]
    top_level = re.compile(r"^(from|import) matplotlib\b", re.MULTILINE)
    assert [path.name for path in scripts if top_level.search(path.read_text())] == []


def test_ray_and_dvc_report_no_usage(tmp_path, monkeypatch):
    usage = pytest.importorskip("ray._common.usage.usage_lib")
    assert not usage.usage_stats_enabled()
    monkeypatch.chdir(tmp_path)  # outside this repository, where .dvc/config does not apply
    assert not analytics.is_enabled()


def test_a_user_can_switch_usage_reports_on(home, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    done = python("-c", IN_ROOT + "import cifar2, os; print(os.environ['RAY_USAGE_STATS_ENABLED'])", ROOT)
    assert done.stdout == "1\n"


def test_every_stage_is_listed_here():
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} == set(STAGES)


@pytest.fixture
def finished(reported, run_stage):
    """The project with the outputs of every stage."""
    run_stage("train.py", "without_flip")
    return reported


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_leaves_the_home_directory_empty(finished, home, name):
    python(*(["-c", PREPARE, ROOT] if name == "prepare" else [ROOT / f"stages/{name}.py"]), *STAGES[name])
    assert written(home) == []


@pytest.mark.slow
def test_prediction_leaves_the_home_directory_empty(selected, home):
    Image.fromarray(random_split(1, 0).x[0].permute(1, 2, 0).numpy()).save("image.png")
    python("-c", IN_ROOT + "from cifar2.deploy import cli; cli.main()", ROOT, "predict", "image.png")
    assert written(home) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_leaves_the_home_directory_empty(clone, home, name):
    github = {"GITHUB_SERVER_URL": "https://example.org", "GITHUB_REPOSITORY": "a/b"}
    # `compare` fails, as the clone has other metrics, and `promote`, as ranks start from 1.
    done = run(clone, sys.executable, "-m", f"tools.{name}", *TOOLS[name], check=False, **github)
    assert "Traceback" not in done.stderr
    assert written(home) == []
