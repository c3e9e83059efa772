"""dvc.yaml says the truth about the code: DVC knows only what is listed there."""

import ast
import configparser
import hashlib
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
# A foreach stage is its `do` part.
STAGES = {name: stage.get("do", stage) for name, stage in DVC["stages"].items()}
TEST_SPLIT = "data/prepared/test.safetensors"


def imported_modules(path: Path) -> set[str]:
    """The project's modules that ``path`` imports when it runs, directly or not, as paths from the root."""
    found: set[str] = set()
    waiting = [path]
    while waiting:
        for module in _imports(ast.parse(waiting.pop().read_text())):
            file = module.replace(".", "/") + ".py"
            file = file if (ROOT / file).exists() else module.replace(".", "/") + "/__init__.py"
            if (ROOT / file).exists() and file not in found:
                found.add(file)
                waiting.append(ROOT / file)
    return found


def _imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "this walk reads absolute imports only"
            assert node.level == 0, "this walk reads absolute imports only"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        names |= _imports(node)
    # `import a.b` runs a/__init__.py too.
    return names | {name.partition(".")[0] for name in names}


def script(stage: str) -> str:
    return STAGES[stage]["cmd"].split()[1]


def deps(stage: str) -> set[str]:
    return set(STAGES[stage]["deps"])


def outputs(stage: str) -> set[str]:
    listed = [item for kind in ("outs", "metrics", "plots") for item in STAGES[stage].get(kind, [])]
    return {item if isinstance(item, str) else next(iter(item)) for item in listed}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_exactly_the_modules_that_its_script_imports(stage):
    listed = {dep for dep in deps(stage) if dep.endswith(".py")}
    assert listed == {script(stage)} | imported_modules(ROOT / script(stage))


def test_the_walk_follows_imports_of_imports_and_inside_functions(tmp_path):
    (tmp_path / "s.py").write_text("def f():\n    from cifar2 import progress\n")
    found = imported_modules(tmp_path / "s.py")
    assert {"cifar2/__init__.py", "cifar2/progress.py", "cifar2/training.py", "cifar2/sgd.py"} <= found
    assert "cifar2/cifar10.py" not in found


def test_every_script_is_a_stage():
    assert {script(stage) for stage in STAGES} == {f"stages/{p.name}" for p in (ROOT / "stages").glob("*.py")}


def test_dvc_lock_was_written_with_the_code_and_the_stages_as_they_are():
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    assert {name.partition("@")[0] for name in lock} == set(STAGES)
    for stage in lock.values():
        for dep in stage["deps"]:
            if dep["path"].endswith(".py"):
                content = (ROOT / dep["path"]).read_bytes()
                assert hashlib.md5(content).hexdigest() == dep["md5"], f"{dep['path']} changed: run `dvc repro`"


def test_only_evaluate_depends_on_the_test_split():
    readers = {s for s in STAGES if any(d == TEST_SPLIT or TEST_SPLIT.startswith(f"{d}/") for d in deps(s))}
    assert readers == {"evaluate"}


def test_only_evaluate_names_the_test_split():
    named = {p.name for p in (ROOT / "stages").glob("*.py") if "test.safetensors" in p.read_text()}
    assert named == {"evaluate.py"}
    for path in (ROOT / "cifar2").glob("*.py"):
        assert "data/prepared" not in path.read_text(), "the library is given its paths"


def test_nothing_of_evaluate_leads_back_into_training_or_selection():
    for stage in STAGES.keys() - {"evaluate"}:
        assert not deps(stage) & outputs("evaluate")
        assert not any(d.startswith("metrics/evaluate") or d == "metrics" for d in deps(stage))


def test_metrics_and_plots_live_in_git_and_data_in_the_cache():
    for stage in STAGES.values():
        assert all(out.startswith("data/") for out in stage.get("outs", []))
        for item in [*stage.get("metrics", []), *stage.get("plots", [])]:
            ((path, options),) = item.items()
            assert path.startswith("metrics/")
            assert options["cache"] is False


def test_every_parameter_has_a_stage_that_tracks_it():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    tracked = {p.split(".")[0] for stage in STAGES.values() for p in stage.get("params", [])}
    assert tracked == set(params)


def test_usage_reports_and_update_checks_are_off():
    config = configparser.ConfigParser()
    config.read_string("\n".join(line.strip() for line in (ROOT / ".dvc/config").read_text().splitlines()))
    assert config["core"]["analytics"] == "false"
    assert config["core"]["check_update"] == "false"
