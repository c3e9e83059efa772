"""A hash of everything that a result depends on: parameters, data and code."""

import ast
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic_core import to_json

from cifar2 import files

PACKAGE = Path(__file__).parents[1]


def fingerprint(parameters: Mapping[str, Any], inputs: Iterable[Path], script: Path) -> str:
    """16 hexadecimal digits for parameters, the content of the inputs, the code of ``script``, and torch's version.

    Args:
        parameters: numbers, strings, lists, pydantic models.
        inputs: data files.
        script: a Python file; the modules of this package that it imports count too.

    Raises:
        UserError: an input is missing.
    """
    digest = hashlib.sha256(to_json({"parameters": parameters, "torch": torch.__version__}))
    for path in [*inputs, script, *sorted(modules(script))]:
        digest.update(hashlib.sha256(files.read(path)).digest())
    return digest.hexdigest()[:16]


def modules(script: Path) -> set[Path]:
    """The modules of this package that ``script`` imports, directly or not, at its top or inside functions.

    All imports must be absolute.  Imports under ``if TYPE_CHECKING`` do not count, and neither does the ``__init__.py``
    of a folder, which has no code.
    """
    imported: set[Path] = set()
    waiting = [script]
    while waiting:
        for name in _imports(ast.parse(waiting.pop().read_text())):
            package, *below = name.split(".")
            if package == PACKAGE.name:
                paths = [PACKAGE.joinpath(*below[:n]).with_suffix(".py") for n in range(1, len(below) + 1)]
                new = {path for path in (PACKAGE / "__init__.py", *paths) if path.exists()} - imported
                imported |= new
                waiting += new
    return imported


def _imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        names |= _imports(node)
    # `import a.b` runs a/__init__.py too.
    return names | {name.partition(".")[0] for name in names}
