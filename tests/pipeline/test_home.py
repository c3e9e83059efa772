"""The project writes nothing into the home directory: no telemetry, no caches."""

import re
import subprocess
import sys

import pytest
from dvc import analytics
from PIL import Image

from tests.clone import ROOT
from tests.conftest import random_split
from tests.pipeline.conftest import written

# Code starts with this: it imports modules from the folder that is the first argument.
IN_ROOT = """
import sys
root = sys.argv.pop(1)
sys.path.insert(0, root)
"""


def python(*arguments):
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        [str(ROOT / "stages/ablate.py")],
        [str(ROOT / "stages/replicate.py"), "fine"],
        [str(ROOT / "stages/sweep.py")],
        ["-c", f"{IN_ROOT}from cifar2.deploy import cli; cli.main()", str(ROOT), "predict", "image.png"],
    ],
    ids=["ablate", "replicate", "sweep", "predict"],
)
def test_what_is_not_in_the_pipeline_leaves_the_home_empty(trained, run_stage, home, command):
    """The stages of the pipeline: tests/pipeline/test_pipeline.py."""
    for name in ("without_flip", "longer"):
        run_stage("train.py", name)
    Image.fromarray(random_split(1, 0).x[0].permute(1, 2, 0).numpy()).save("image.png")
    python(*command)
    assert written(home) == []
