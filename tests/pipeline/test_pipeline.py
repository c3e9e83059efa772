"""The pipeline under DVC on the real images, with one epoch and one seed: minutes, hence marked slow."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from tests.clone import edit, new_clone, run
from tests.conftest import ROOT
from tests.pipeline.test_dvc import imported_modules

pytestmark = pytest.mark.slow

NAMES = ["precise", "fast", "fine", "balanced", "smooth", "augmented", "linear"]
EVALUATED = ["mlp", "mlp_augmented", "transfer", "final"]
MLP = {"model": "mlp", "family": "mlp", "input": "prepared"}


@pytest.fixture(autouse=True)
def as_committed(clone):
    yield
    run(clone, "git", "checkout", "--quiet", ".")
    run(clone, "dvc", "checkout", "--quiet")


def changed_stages(folder: Path) -> set[str]:
    return set(json.loads(run(folder, "dvc", "status", "--json").stdout))


def test_another_home_and_other_threads_give_the_same_bytes(clone, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    other = new_clone(tmp_path / "other")
    # Of what tools.repro does not share out itself.
    threads = "2" if os.environ.get("OMP_NUM_THREADS") == "1" else "1"
    environment = {"HOME": str(home), "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    printed = run(other, sys.executable, "-m", "tools.repro", "--jobs", "2", **environment).stdout
    assert printed.count("seed 0 epoch 1:") == len(NAMES)
    assert (other / "dvc.lock").read_bytes() == (clone / "dvc.lock").read_bytes()
    for path in sorted((clone / "metrics").rglob("*")):
        if path.is_file():
            assert (other / path.relative_to(clone)).read_bytes() == path.read_bytes(), path


def test_configurations_that_fail_side_by_side_are_named(clone):
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


def test_a_bad_parameter_stops_them_before_they_start(clone):
    edit(clone, lambda document: [document["configs"][name].update(lr=-1) for name in ("fast", "fine")])
    done = run(clone, sys.executable, "-m", "tools.repro", "--jobs", "2", check=False)
    assert done.returncode == 1
    assert "error: params.yaml: configs.fast.lr" in done.stderr
    assert "Running" not in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_with_nothing_changed_nothing_runs(clone):
    done = run(clone, "dvc", "repro")
    assert "Running" not in done.stdout
    assert "Data and pipelines are up to date." in done.stdout
    assert not changed_stages(clone)


@pytest.mark.parametrize("command", ["repro", "status", "checkout", "data status", "dag"])
def test_a_plain_command_prints_no_warning(clone, command):
    """The extended pipeline, whose outputs are not here, is a project of its own."""
    done = run(clone, "dvc", *command.split())
    assert "WARNING" not in done.stdout + done.stderr
    assert "not in cache" not in done.stdout
    assert "extended" not in done.stdout


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


def test_a_configuration_reruns_its_stage_selection_and_report(clone):
    edit(clone, lambda document: document["configs"]["fine"].update(lr=0.011))
    assert changed_stages(clone) == {"check_params", "train@fine", "select_model", "report"}


def test_the_feature_extractor_reruns_its_configurations_only(clone):
    edit(clone, lambda document: document["features"].update(image_size=40))
    assert changed_stages(clone) == {"check_params", "features"}
    run(clone, "dvc", "repro", "features")
    changed = changed_stages(clone)
    assert "train@linear" in changed
    assert not changed & {f"train@{name}" for name in NAMES if name != "linear"}


def test_a_changed_file_makes_exactly_its_stages_stale(clone, monkeypatch):
    monkeypatch.chdir(clone)
    stages = yaml.safe_load((clone / "dvc.lock").read_text())["stages"]
    uses = {name: used(stage["cmd"].split()[1]) for name, stage in stages.items()}
    for path in sorted([*(clone / "cifar2").rglob("*.*"), *(clone / "stages").glob("*.py")]):
        before = path.read_text()
        path.write_text(f"{before}\n# changed")
        with Repo() as repo:  # as `dvc status`, which starts for seconds
            stale = set(repo.status())
        path.write_text(before)
        assert stale == {name for name, files in uses.items() if str(path.relative_to(clone)) in files}, path


def used(script: str) -> set[str]:
    """The script, the modules that it imports, directly or not, and the page that one of them fills in."""
    modules = {script} | imported_modules(ROOT / script)
    return modules | ({"cifar2/report/page.html"} if "cifar2/report/page.py" in modules else set())


@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("cifar2/gradcheck.py", ["verify"]),
        ("cifar2/evaluation/selection.py", ["select_model"]),
        ("cifar2/deploy/export.py", ["export"]),
    ],
)
def test_what_is_stale_runs_again_and_nothing_else(clone, path, stages):
    with (clone / path).open("a") as file:
        file.write("# changed")
    printed = run(clone, "dvc", "repro").stdout
    assert re.findall(r"Running stage '(.*)'", printed) == stages


def test_the_extended_configurations_change_nothing_here(clone):
    edit(clone, lambda document: document["extended"]["configs"].clear())
    assert not changed_stages(clone)


def test_every_family_and_the_final_model_have_a_stage(clone):
    listed = run(clone, "dvc", "stage", "list", "--name-only").stdout.split()
    assert {stage for stage in listed if stage.startswith("evaluate")} == {f"evaluate@{name}" for name in EVALUATED}
    assert {path.stem for path in (clone / "metrics/evaluate").glob("*.json")} == set(EVALUATED)
    select = json.loads((clone / "metrics/select.json").read_text())
    assert set(select["best_per_family"]) == set(EVALUATED) - {"final"}


def test_adding_a_configuration_adds_a_stage(clone):
    edit(clone, lambda d: d["configs"].update(bold={**MLP, "lr": 0.05, "momentum": 0.5, "weight_decay": 0.0}))
    assert changed_stages(clone) == {"check_params", "train@bold", "select_model", "report"}
    listed = run(clone, "dvc", "stage", "list", "--name-only").stdout.split()
    assert {f"train@{name}" for name in [*NAMES, "bold"]} <= set(listed)


def test_changing_a_parameter_of_verify_trains_nothing_again(clone):
    edit(clone, lambda document: document["verify"].update(seed=8))
    printed = run(clone, "dvc", "repro").stdout
    assert "Running stage 'verify'" in printed
    assert "Running stage 'train" not in printed
    assert "Running stage 'evaluate" not in printed


def test_an_experiment_is_run_listed_and_compared(clone):
    run(clone, "dvc", "exp", "run", "-n", "slower-fine", "-S", "configs.fine.lr=0.001")
    listed = run(clone, "dvc", "exp", "show", "--csv").stdout
    assert "slower-fine" in listed
    params = json.loads(run(clone, "dvc", "params", "diff", "--json").stdout)
    assert params == {"params.yaml": {"configs.fine.lr": {"old": 0.01, "new": 0.001, "diff": pytest.approx(-0.009)}}}
    metrics = json.loads(run(clone, "dvc", "metrics", "diff", "--json").stdout)
    assert "val_loss" in metrics["metrics/train/fine.json"]
    assert "metrics/train/fast.json" not in metrics


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


def test_a_bad_parameter_stops_dvc_before_it_deletes_anything(clone):
    """In one clear line."""
    before = outputs(clone)
    edit(clone, lambda document: document["configs"]["fine"].update(lr=-1))
    done = run(clone, "dvc", "repro", check=False)
    assert done.returncode != 0
    assert "error: params.yaml: configs.fine.lr must be above 0, not -1\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert before.keys() - outputs(clone).keys() == {"data/checked.json"}


def outputs(folder):
    return {
        str(p.relative_to(folder)): p for top in ("data", "metrics") for p in (folder / top).rglob("*") if p.is_file()
    }


def test_no_configuration_at_all_stops_dvc_with_one_clear_line(clone):
    edit(clone, lambda document: document.update(configs={}))
    done = run(clone, "dvc", "repro", check=False)
    assert done.returncode != 0
    assert "configs needs 1 or more entries, not {}" in done.stderr
    assert "Traceback" not in done.stderr
