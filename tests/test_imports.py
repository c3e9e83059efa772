from pathlib import Path

import pytest

from cifar2 import imports


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three modules, of which one imports another."""
    folder = tmp_path / "cifar2"
    folder.mkdir()
    for name, text in {
        "__init__": "",
        "a": "from cifar2.b import thing\nimport os.path\n",
        "b": "thing = 1\n",
        "c": "",
    }.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(imports, "PACKAGE", folder)
    return folder


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import os\nx = 1\n", set()),
        ("from cifar2 import c\n", {"__init__", "c"}),
        ("import cifar2.c\n", {"__init__", "c"}),
        ("from cifar2 import a\n", {"__init__", "a", "b"}),
        ("def f():\n    if x:\n        from cifar2 import b\n", {"__init__", "b"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from cifar2 import a\n", set()),
        ("from cifar2 import nothing_of_this_name\n", {"__init__"}),
    ],
)
def test_it_finds_what_runs_and_nothing_else(package, tmp_path, text, found):
    script = tmp_path / "script.py"
    script.write_text(text)
    assert imports.modules(script) == {package / f"{name}.py" for name in found}


def test_no_module_of_the_package_imports_relatively():
    """Which the walk does not follow."""
    for path in imports.PACKAGE.glob("*.py"):
        assert "from ." not in path.read_text()


def test_the_projects_own_loop_is_followed_to_its_end():
    names = {path.stem for path in imports.modules(Path(imports.PACKAGE, "trial.py"))}
    assert {"training", "inplace", "schedule", "transfer", "errors"} <= names
    assert not {"figures", "report", "cifar10", "space"} & names
