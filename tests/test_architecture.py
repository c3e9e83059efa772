"""Imports between the rooms of the package go one way; imports for type checking count."""

import ast
from graphlib import TopologicalSorter

import pytest

from tests.clone import ROOT

BASE = {"cifar2", "errors", "files", "params", "progress_bar"}
TEACHING = {"losses", "mynet", "sgd", "descent", "inplace", "gradcheck", "sgdcheck", "verification"}
LIBRARY = ["base", "teaching", "dataset", "networks", "evaluation", "training", "sweep"]
# The rooms from which the modules of a room may import, beside their own.
MAY_IMPORT = {room: {*LIBRARY[:i]} for i, room in enumerate(LIBRARY)} | {
    "dataset": {"base"},
    "figures": {*LIBRARY},
    "report": {*LIBRARY, "figures"},
    "deploy": {*LIBRARY},
}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.glob("cifar2/**/*.py")
}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"} - {"cifar2"}


def room(module):
    *folders, name = module.removeprefix("cifar2.").split(".")
    return folders[0] if folders else "base" if name in BASE else "teaching" if name in TEACHING else name


def imports(module):
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & MODULES.keys() - PACKAGES - {module}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - PACKAGES))
def test_module_imports_from_rooms_before_its_own(module):
    allowed = MAY_IMPORT[room(module)] | {room(module)}
    assert {name for name in imports(module) if room(name) not in allowed} == set()


def test_no_modules_import_each_other():
    TopologicalSorter({module: imports(module) for module in MODULES}).prepare()
