"""Which modules of this package a script imports: what it finds depends on them as it does on its data."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def modules(script: Path) -> set[Path]:
    """The files of this package that run when ``script`` does, imported directly or not, inside functions too.

    Imports for type checkers alone (``if TYPE_CHECKING``) do not run.  All imports must be absolute.
    The ``__init__.py`` of a folder has no code, and is left out.
    """
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        for name in _imports(ast.parse(waiting.pop().read_text())):
            package, *below = name.split(".")
            if package == PACKAGE.name:
                files = [PACKAGE.joinpath(*below[:n]).with_suffix(".py") for n in range(1, len(below) + 1)]
                new = {file for file in (PACKAGE / "__init__.py", *files) if file.exists()} - found
                found |= new
                waiting += new
    return found


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
