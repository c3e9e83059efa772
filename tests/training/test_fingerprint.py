import ast

import pytest

from cifar2.training import fingerprint


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three modules, of which one imports another."""
    folder = tmp_path / "cifar2"
    (folder / "room").mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "a": "from cifar2.b import thing\nimport os.path\n",
        "b": "thing = 1\n",
        "c": "",
        "room/__init__": "",
        "room/d": "",
    }.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(fingerprint, "PACKAGE", folder)
    return folder


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import os\nx = 1\n", set()),
        ("from cifar2 import c\n", {"__init__", "c"}),
        ("import cifar2.c\n", {"__init__", "c"}),
        ("from cifar2 import a\n", {"__init__", "a", "b"}),
        ("from cifar2.room import d\n", {"__init__", "room/d"}),
        ("from cifar2.room.d import thing\n", {"__init__", "room/d"}),
        ("import cifar2.room.d\n", {"__init__", "room/d"}),
        ("def f():\n    if x:\n        from cifar2 import b\n", {"__init__", "b"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from cifar2 import a\n", set()),
        ("from cifar2 import nothing_of_this_name\n", {"__init__"}),
    ],
)
def test_modules_are_those_that_a_script_imports(package, tmp_path, text, names):
    script = tmp_path / "script.py"
    script.write_text(text)
    assert fingerprint.modules(script) == {package / f"{name}.py" for name in names}


def test_no_module_imports_relatively():
    """The walk does not follow such imports."""
    for path in fingerprint.PACKAGE.rglob("*.py"):
        assert "from ." not in path.read_text()


def test_init_file_of_a_room_has_no_code():
    """The walk leaves it out."""
    for path in fingerprint.PACKAGE.glob("*/__init__.py"):
        (docstring,) = ast.parse(path.read_text()).body
        assert isinstance(docstring, ast.Expr)
