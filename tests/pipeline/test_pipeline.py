"""The pipeline under DVC on the real images, with one epoch and one seed: minutes, hence marked slow."""

import json
import os
import re
import sys

import pytest

from tests.clone import edit, run
from tests.pipeline.conftest import written

pytestmark = pytest.mark.slow

NAMES = ["precise", "fast", "fine", "balanced", "smooth", "augmented", "linear"]
EVALUATED = ["fine", "mlp", "mlp_augmented", "transfer", "final_mlp", "final"]
BOLD = {"model": "mlp", "family": "mlp", "input": "prepared", "lr": 0.05, "momentum": 0.5, "weight_decay": 0.0}


@pytest.fixture(autouse=True)
def as_committed(clone):
    yield
    run(clone, "git", "checkout", "--quiet", ".")
    run(clone, "dvc", "checkout", "--quiet")


def test_another_home_and_other_threads_give_the_same_bytes(clone, home):
    """Of stages that test_bits.py leaves out; after a real run, `make compare` lists every output that differs."""
    threads = "2" if os.environ.get("OMP_NUM_THREADS") == "1" else "1"
    environment = {"OMP_NUM_THREADS": threads, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    stages = ("near_duplicates", "select_model", "evaluate@final_mlp", "export", "report")
    run(clone, "dvc", "repro", "--force", "--single-item", *stages, **environment)
    assert "up to date" in run(clone, "dvc", "status").stdout
    assert run(clone, "git", "status", "--porcelain").stdout == ""
    assert written(home) == []


def test_a_tool_leaves_the_home_directory_empty(clone, home):
    """Not `readme`, which runs the commands of the pipeline in clones; `repro` is in the next test."""
    github = {"GITHUB_SERVER_URL": "https://example.org", "GITHUB_REPOSITORY": "a/b"}
    # `compare` fails, as the clone has other metrics, and `promote`, as ranks start from 1.
    for command in ("compare", "promote 0 best", "pull_request HEAD HEAD", "stale"):
        name, *arguments = command.split()
        done = run(clone, sys.executable, "-m", f"tools.{name}", *arguments, check=False, **github)
        assert "Traceback" not in done.stderr
        assert written(home) == [], command


def test_configurations_that_fail_side_by_side_are_named(clone, home):
    edit(clone, lambda document: [document["configs"][name].update(lr=0.011) for name in ("fast", "fine")])
    # Where a file is written before it gets its name there is a folder.
    in_the_way = [clone / f"data/models/train/.{name}.safetensors.partial" for name in ("fast", "fine")]
    for folder in in_the_way:
        folder.mkdir()
    done = run(clone, sys.executable, "-m", "tools.repro", "--jobs", "2", check=False)
    for folder in in_the_way:
        folder.rmdir()
    assert done.returncode == 1
    assert "train@fast, train@fine failed" in done.stderr
    assert "error: data/models/train/fast.safetensors cannot be written: Is a directory" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert written(home) == []


@pytest.mark.parametrize("command", ["repro", "status", "checkout", "data status", "dag"])
def test_a_plain_command_prints_no_warning(clone, command):
    """The extended pipeline, whose outputs are not here, is a project of its own."""
    done = run(clone, "dvc", *command.split())
    assert "WARNING" not in done.stdout + done.stderr
    assert "not in cache" not in done.stdout
    assert "extended" not in done.stdout
    assert "Running" not in done.stdout


def test_a_queued_run_executes_the_code_it_was_queued_with(clone, tmp_path):
    """It runs in a temporary folder, where Python could find the package of this one."""
    said, package = tmp_path / "said", clone / "cifar2/__init__.py"
    code = f"import pathlib\npathlib.Path({str(said)!r}).write_text('CODE 1 ' + __file__)\n"
    package.write_text(f"{package.read_text()}\n{code}")
    run(clone, "dvc", "exp", "run", "--queue", "--name", "queued", "check_params")
    package.write_text(package.read_text().replace("CODE 1", "CODE 2"))
    run(clone, "dvc", "exp", "run", "--run-all")
    number, path = said.read_text().removeprefix("CODE ").split(" ", 1)
    assert number == "1"
    assert str(clone / ".dvc/tmp/exps") in path


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        (
            lambda document: document["configs"]["fine"].update(lr=0.011),
            {"check_params", "train@fine", "select_model", "report"},
        ),
        (
            lambda document: document["configs"].update(bold=BOLD),
            {"check_params", "train@bold", "select_model", "report"},
        ),
        (
            lambda document: document["features"].update(image_size=40),
            {"check_params", "features@train", "features@val", "features@test"},
        ),
        (lambda document: document["extended"]["configs"].clear(), set()),
    ],
    ids=["a configuration", "a new configuration", "the feature extractor", "an extended configuration"],
)
def test_a_changed_parameter_makes_its_stages_stale(clone, change, stages):
    edit(clone, change)
    assert set(json.loads(run(clone, "dvc", "status", "--json").stdout)) == stages


@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("cifar2/evaluation/selection.py", {"select_model"}),
        ("cifar2/deploy/export.py", {"export"}),
        ("params.yaml", {"check_params", "verify", "report"}),
    ],
)
def test_what_is_stale_runs_again_and_nothing_else(clone, path, stages):
    if path == "params.yaml":
        edit(clone, lambda document: document["verify"].update(seed=8))
    else:
        (clone / path).write_text((clone / path).read_text() + "# changed")
    printed = run(clone, "dvc", "repro").stdout
    assert set(re.findall(r"Running stage '(.*)'", printed)) == stages


def test_every_family_and_the_final_model_have_a_stage(clone):
    listed = run(clone, "dvc", "stage", "list", "--name-only").stdout.split()
    assert {stage for stage in listed if stage.startswith("evaluate")} == {f"evaluate@{name}" for name in EVALUATED}
    assert {path.stem for path in (clone / "metrics/evaluate").glob("*.json")} == set(EVALUATED)
    select = json.loads((clone / "metrics/select.json").read_text())
    assert set(select["best_per_family"]) == set(EVALUATED) - {"fine", "final_mlp", "final"}


def test_the_plots_lay_the_configurations_over_each_other(clone, tmp_path):
    done = run(clone, "dvc", "plots", "show", "-o", str(tmp_path / "plots"))
    assert "failed" not in done.stdout + done.stderr
    page = (tmp_path / "plots/index.html").read_text()
    for title in ("Training loss", "Validation loss", "Training accuracy", "Validation accuracy"):
        assert f"{title} by epoch" in page
    for name in NAMES:
        assert f'"configuration": "{name}"' in page
    assert {p.name for p in (tmp_path / "plots/static").iterdir()} >= {
        f"workspace_metrics_figures_{name}.png"
        for name in (
            *("samples", "class_distribution", "near_duplicates", "gradient_errors", "ranking"),
            *("sweep", "sweep_by_parameter"),
            *(f"{kind}_{of}" for kind in ("confusion", "mistakes") for of in EVALUATED),
        )
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda document: document["configs"]["fine"].update(lr=-1),
            "error: params.yaml: configs.fine.lr must be greater than 0, not -1\n",
        ),
        (lambda document: document.update(configs={}), "configs must have at least 1 item, not 0"),
    ],
    ids=["a bad value", "no configuration"],
)
def test_a_bad_parameter_stops_dvc_before_it_deletes_anything(clone, change, message):
    """In one clear line."""
    before = outputs(clone)
    edit(clone, change)
    done = run(clone, "dvc", "repro", check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert before - outputs(clone) == {"data/checked.json"}


def outputs(folder):
    return {str(p.relative_to(folder)) for top in ("data", "metrics") for p in (folder / top).rglob("*") if p.is_file()}
