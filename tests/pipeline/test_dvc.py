"""dvc.yaml and extended/dvc.yaml describe the code as it is: DVC knows only what is listed there."""

import configparser
import hashlib
import os
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from cifar2.training import fingerprint
from tests.clone import read
from tests.conftest import ROOT


def from_root(item, folder):
    """An item of a list in ``folder``'s dvc.yaml, with its paths as seen from the root."""
    if isinstance(item, str):
        return os.path.normpath(f"{folder}{item}")
    return {os.path.normpath(f"{folder}{path}"): options for path, options in item.items()}


def stages(folder):
    """The stages of ``folder``'s dvc.yaml, with paths, parameters and commands as seen from the root."""
    pipeline = yaml.safe_load((ROOT / folder / "dvc.yaml").read_text())["stages"]
    for stage in pipeline.values():
        stage = stage.get("do", stage)
        for kind in {"deps", "outs", "metrics", "plots"} & stage.keys():
            stage[kind] = [from_root(item, folder) for item in stage[kind]]
        if folder:
            assert stage["cmd"].startswith("cd .. && ")
            stage["cmd"] = stage["cmd"].removeprefix("cd .. && ")
            ((path, stage["params"]),) = stage.get("params", [{"../params.yaml": []}])[0].items()
            assert path == "../params.yaml"
    return pipeline


# By the folder below which everything lies that they write.
DVC = {folder: stages(folder) for folder in ("", "extended/")}
# A foreach stage is its `do` part.
STAGES = {f"{root}{name}": stage.get("do", stage) for root, pipeline in DVC.items() for name, stage in pipeline.items()}
PARAMS = read(ROOT / "params.yaml")
# Those that have a configuration to select.
FAMILIES = {"": ["mlp", "mlp_augmented", "transfer"], "extended/": ["cnn", "transfer"]}
FINAL = ["final_mlp", "final"]
# The two others are perceptrons on images.
OF_FEATURES = {"transfer", "final"}
MEASURED = {
    "": {
        name: {"model": f"data/models/{path}.safetensors", "input": "features" if name in OF_FEATURES else "prepared"}
        for name, path in {"fine": "train/fine", **{name: name for name in (*FAMILIES[""], *FINAL)}}.items()
    },
    "extended/": ["cnn"],
}
EVALUATE = {"evaluate", "extended/evaluate"}
# What comes after it, and tells of what was found.
TELL = {"explain", "export", "report"}
TEST_SPLIT = "data/prepared/test.safetensors"
# Computed from the test images.
NEAR_DUPLICATES = "data/prepared/near_duplicates.csv"


def imported_modules(path: Path) -> set[str]:
    """The project's modules that ``path`` imports when it runs, directly or not, as paths from the root."""
    return {str(module.relative_to(ROOT)) for module in fingerprint.modules(path)}


def script(stage: str) -> str:
    return STAGES[stage]["cmd"].split()[1]


def deps(stage: str) -> set[str]:
    return set(STAGES[stage]["deps"])


def root(stage: str) -> str:
    """The folder of its pipeline."""
    return stage[: stage.rfind("/") + 1]


def written(stage: str, *kinds: str) -> set[str]:
    listed = [item for kind in kinds for item in STAGES[stage].get(kind, [])]
    return {item if isinstance(item, str) else next(iter(item)) for item in listed}


def outputs(stage: str) -> set[str]:
    return written(stage, "outs", "metrics", "plots")


def reads(stage: str, output: str) -> bool:
    """Whether a dependency of ``stage`` is ``output``, for any item of a foreach stage, or a folder that it lies in."""
    pattern = re.sub(r"\$\{.*?\}", "*", output)
    return any(fnmatch(dep, pattern) or output.startswith(f"{dep}/") for dep in deps(stage))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_exactly_the_imports_of_its_script(stage):
    listed = {dep for dep in deps(stage) if dep.endswith(".py")}
    assert listed == {script(stage)} | imported_modules(ROOT / script(stage))


def test_every_script_but_the_sweep_is_a_stage():
    """`make sweep` runs it: a frozen stage would make DVC print a warning each time."""
    scripts = {f"stages/{p.name}" for p in (ROOT / "stages").glob("*.py")} - {"stages/sweep.py"}
    assert {script(stage) for stage in STAGES} == scripts
    assert not any("frozen" in stage for stage in STAGES.values())


def test_the_extended_pipelines_stages_have_an_option_of_it():
    """train finds it by the name of the configuration, evaluate by the path of the model."""
    for stage in ("check_params", "select_model"):
        assert "--extended" not in STAGES[stage]["cmd"]
        assert STAGES[f"extended/{stage}"]["cmd"] == f"{STAGES[stage]['cmd']} --extended"
    assert STAGES["evaluate"]["cmd"] == "python stages/evaluate.py ${item.model}"
    assert STAGES["extended/evaluate"]["cmd"] == "python stages/evaluate.py extended/data/models/${item}.safetensors"


def test_there_is_a_stage_for_each_configuration_and_each_family():
    assert {root: pipeline["train"]["foreach"] for root, pipeline in DVC.items()} == {
        "": "${configs}",
        "extended/": "${extended.configs}",
    }
    variants = ("downwards", "upwards")
    for stage in variants:
        assert DVC["extended/"][stage]["foreach"] == f"${{extended.ablation.{stage}.changes}}"
    for stage, own in (
        ("train", ["configs.${key}"]),
        ("extended/train", ["extended.configs.${key}"]),
        *(
            (
                f"extended/{stage}",
                [f"configs.${{extended.ablation.{stage}.base}}", f"extended.ablation.{stage}.changes.${{key}}"],
            )
            for stage in variants
        ),
    ):
        assert STAGES[stage]["cmd"] == "python stages/train.py ${key}"
        assert STAGES[stage]["params"] == [*own, "data.image_size", "normalise", "train"]
    assert {folder: pipeline["evaluate"]["foreach"] for folder, pipeline in DVC.items()} == MEASURED
    for below in ("", "extended/"):
        names = [f"models/{family}.safetensors" for family in FAMILIES[below]]
        finals = [f"models/selected/{name}.json" for name in (["final"] if below else FINAL)]
        wanted = {f"{below}data/{name}" for name in [*names, *finals]}
        assert {out for out in written(f"{below}select_model", "outs") if "data/" in out} == wanted
    assert "${item.model}" in deps("evaluate")
    assert "extended/data/models/${item}.safetensors" in deps("extended/evaluate")
    assert DVC[""]["refit"]["foreach"] == FINAL


def test_training_depends_on_what_the_configuration_learns_from():
    for stage in ("train", "extended/train"):
        assert {dep for dep in deps(stage) if dep.startswith("data/${")} == {
            "data/${item.input}/train.safetensors",
            "data/${item.input}/val.safetensors",
        }


def test_the_pipelines_share_only_the_bases_of_the_ablation():
    shared = {output for stage in ("prepare", "near_duplicates", "verify", "features") for output in outputs(stage)}
    bases = {f"data/validated/${{extended.ablation.{way}.base}}.safetensors" for way in ("downwards", "upwards")}
    for stage in STAGES:
        assert all(out.startswith("extended/") == bool(root(stage)) for out in outputs(stage))
        assert root(stage) or not any(dep.startswith("extended") for dep in deps(stage))
        if root(stage):
            others = {dep for dep in deps(stage) if not dep.startswith("extended/") and not dep.endswith(".py")}
            assert (bases <= others) == (stage == "extended/ablate")
            others -= bases
            assert others <= shared | {f"data/${{item.input}}/{split}.safetensors" for split in ("train", "val")}


@pytest.mark.parametrize("folder", DVC)
def test_parameters_are_checked_before_any_other_stage_runs(folder):
    """DVC deletes the outputs of a stage before it runs it."""
    written = (f"{folder}data/", f"{folder}metrics/")
    of_folder = [stage for stage in STAGES if root(stage) == folder]
    first = [stage for stage in of_folder if not any(dep.startswith(written) for dep in deps(stage))]
    assert first == [f"{folder}check_params"]
    followed = {param.split(".")[0] for stage in of_folder for param in STAGES[stage].get("params", [])}
    assert {param.split(".")[0] for param in STAGES[first[0]]["params"]} == followed


def test_dvc_lock_is_up_to_date():
    """Of the extended pipeline, which takes hours, `make stale` says so in a warning."""
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    groups = {
        "train": PARAMS["configs"],
        "evaluate": MEASURED[""],
        "refit": FINAL,
        "features": ["train", "val", "test"],
    }
    names = {stage: [f"{stage}@{item}" for item in groups[stage]] if stage in groups else [stage] for stage in DVC[""]}
    assert set(lock) == {name for of_stage in names.values() for name in of_stage}
    for stage in lock.values():
        for dep in stage["deps"]:
            if dep["path"].endswith(".py"):
                content = (ROOT / dep["path"]).read_bytes()
                assert hashlib.md5(content).hexdigest() == dep["md5"], f"{dep['path']} changed: run `dvc repro`"


def test_only_the_last_stages_depend_on_the_test_set():
    last = EVALUATE | TELL | {"near_duplicates"}
    assert {stage for stage in STAGES if reads(stage, TEST_SPLIT)} == last
    # And on its features, which are a stage of their own.
    assert {stage for stage in STAGES if any(dep.endswith("/test.safetensors") for dep in deps(stage))} == last
    assert {stage for stage in STAGES if reads(stage, NEAR_DUPLICATES)} == EVALUATE


def test_no_other_script_names_the_test_split():
    named = {p.name for p in (ROOT / "stages").glob("*.py") if re.search(r'"test|test\.safetensors', p.read_text())}
    assert named == {"near_duplicates.py", "features.py", "evaluate.py", *(f"{name}.py" for name in TELL)}
    named = {p.name for p in (ROOT / "stages").glob("*.py") if "near_duplicates.csv" in p.read_text()}
    assert named == {"near_duplicates.py", "evaluate.py"}
    for path in (ROOT / "cifar2").rglob("*.py"):
        assert "data/prepared" not in path.read_text(), "the library is given its paths"


def test_no_test_result_leads_back_into_training_or_selection():
    last = EVALUATE | TELL
    for stage in STAGES.keys() - last:
        assert not [output for of in last for output in outputs(of) if reads(stage, output)]
        for below in ("", "extended/"):
            folders = (f"{below}metrics", f"{below}data", below.rstrip("/"))
            assert not any(d.startswith(f"{below}metrics/evaluate") or d in folders for d in deps(stage))


def test_report_runs_before_export_which_may_fail():
    """DVC runs stages that do not depend on each other in the order of the file."""
    assert list(DVC[""])[-3:] == ["explain", "report", "export"]
    for stage in STAGES:
        assert stage == "report" or not [output for of in TELL for output in outputs(of) if reads(stage, output)]


def test_a_dependency_is_found_by_its_folder_and_for_any_item():
    assert reads("report", "metrics/evaluate/${key}.json")
    assert reads("report", "data/evaluated/${key}.safetensors")
    assert reads("select_model", "metrics/train/${key}.json")
    assert not reads("select_model", "metrics/evaluate/${key}.json")


def test_the_report_depends_on_its_template():
    """And on whatever else lies beside the modules and is none."""
    beside = {str(p.relative_to(ROOT)) for p in (ROOT / "cifar2").rglob("*.[!p]*") if p.suffix != ".pyc"}
    assert beside == {"cifar2/report/page.html"}
    for stage in STAGES:
        assert ("cifar2/report/page.html" in deps(stage)) == ("cifar2/report/page.py" in deps(stage))
    assert "cifar2/report/page.html" in deps("report")


def test_metrics_are_in_git_and_data_in_the_cache():
    for name, stage in STAGES.items():
        for item in [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]:
            path, options = (item, {}) if isinstance(item, str) else next(iter(item.items()))
            in_git = options.get("cache") is False
            assert path.startswith(f"{root(name)}{'metrics' if in_git else 'data'}/") or path == "metrics/report.html"
    assert "metrics/report.html" in STAGES["report"]["outs"]


def test_accuracies_are_the_metrics_and_nothing_else_is():
    metrics = {f"metrics/{path}.json" for path in ("train/${key}", "refit/${item}", "evaluate/${key}")}
    extended = {f"extended/metrics/{path}.json" for path in ("train/${key}", "evaluate/${item}")}
    assert {path for stage in STAGES for path in written(stage, "metrics")} == metrics | extended


@pytest.mark.slow
def test_the_table_of_metrics_fits_on_a_screen():
    shown = subprocess.run(["dvc", "metrics", "show"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = shown.stdout.splitlines()
    assert {"val_accuracy", "val_accuracy_se", "test_accuracy"} <= set(lines[0].split())
    assert max(map(len, lines)) <= 180
    assert len(lines) <= 24


def test_every_evaluation_writes_the_same():
    kinds = {
        ("outs", "metrics"): {"data/evaluated/${key}.safetensors", "metrics/evaluate/${key}.json"},
        ("plots",): {
            *(f"metrics/evaluate/${{key}}_{kind}.csv" for kind in ("roc", "calibration", "predictions")),
            *(f"metrics/figures/{kind}_${{key}}.png" for kind in ("confusion", "mistakes")),
        },
    }
    for kind, paths in kinds.items():
        assert written("evaluate", *kind) == paths
        assert written("extended/evaluate", *kind) == {f"extended/{path}".replace("key", "item") for path in paths}


def test_the_final_model_has_a_name():
    artifacts = yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"]
    assert artifacts["cifar2"]["path"] in {output.replace("${item}", "final") for output in outputs("refit")}


def test_every_parameter_of_a_result_is_tracked_by_a_stage():
    tracked = {p.split(".")[0] for stage in STAGES.values() for p in stage.get("params", [])}
    assert tracked == set(PARAMS) - {"checkpoints", "sweep"}


def test_usage_reports_and_update_checks_are_off():
    for folder in DVC:
        config = configparser.ConfigParser()
        config.read_string("\n".join(line.strip() for line in (ROOT / folder / ".dvc/config").read_text().splitlines()))
        assert config["core"]["analytics"] == "false"
        assert config["core"]["check_update"] == "false"
