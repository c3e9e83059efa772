"""Create, complete or repair .venv, the environment of the locked, hashed requirements: ``make install``.

This runs before anything is installed, so it needs only Python 3.11 or later. A group is one of ``dependency-groups``
in pyproject.toml; groups installed before stay. ``.venv/installed`` records the folder, requirements, groups and
packages of a complete installation. If the folder was moved or the environment's Python is gone, the environment is
created again, because its commands contain the absolute path of their Python. If the requirements changed, or a group
or package is missing, the requirements are installed again.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

VENV = Path(".venv")
RECORD = VENV / "installed"
LOCK, CPU_LOCK = "requirements.txt", "requirements-cpu.txt"
SOURCES = ("requirements-uv.txt", "pyproject.toml", "environment/cifar2-path.pth")
# The options of uv for PyTorch without GPU libraries.
CPU = ("--torch-backend", "cpu")
# Any of these makes pip install outside its environment.
ELSEWHERE = {"PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"}


def check_repository() -> None:
    """Exit with one line if this is not a git repository that DVC can use."""
    here = Path.cwd()
    try:
        done = subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("error: git is not installed, and DVC needs it")
    if "dubious ownership" in done.stderr:
        sys.exit(
            f"error: {here} belongs to another user, so git does not read it; "
            f"if you trust it, run: git config --global --add safe.directory '{here}'"
        )
    if done.returncode:
        sys.exit(
            f"error: {here} is not a git repository (a downloaded ZIP file has no history), and DVC needs one; "
            "use git clone, or run here: git init && git add . && git commit -m CIFAR-2"
        )


def state(lock: str, groups: Iterable[str]) -> dict[str, Any]:
    """The content of RECORD for the present installation, of these groups from this lock file."""
    return {
        "folder": str(Path.cwd()),
        "groups": list(groups),
        "lock": lock,
        "sources": {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in (lock, *SOURCES)},
        "packages": sorted(path.name for path in VENV.glob("lib/python*/site-packages/*.dist-info")),
    }


def recorded() -> dict[str, Any]:
    """The content of RECORD, or an empty dictionary if no installation was completed."""
    try:
        content: dict[str, Any] = json.loads(RECORD.read_text())
    except (OSError, ValueError):
        return {}
    return content


def complete(lock: str, groups: Iterable[str]) -> bool:
    """Whether the environment matches RECORD; it may have more packages."""
    if not Path(lock).exists():
        return False
    before, now = recorded(), state(lock, groups)
    return before == {**now, "packages": before.get("packages")} and {*before["packages"]} <= {*now["packages"]}


def succeeds(*command: str | Path) -> bool:
    """Whether ``command`` exists and has exit code 0."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def run(*command: str | Path) -> None:
    """Run a program, with a pip that installs into its own environment.

    Raises:
        CalledProcessError: it failed, and printed why.
    """
    environment = {name: value for name, value in os.environ.items() if name not in ELSEWHERE} | {"PIP_USER": "0"}
    subprocess.run(command, check=True, env=environment)


def python_works() -> bool:
    """Whether the environment has a working Python of a supported version."""
    return succeeds(VENV / "bin/python", "-c", "import sys; sys.exit(sys.version_info < (3, 11))")


def cache_is_writable() -> bool:
    """Whether uv can write its cache, by default in the home directory; uv fails if it cannot."""
    folder = Path(subprocess.run(["uv", "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip())
    return os.access(next(path for path in (folder, *folder.parents) if path.exists()), os.W_OK)


def managed() -> Path:
    """A copy of pyproject.toml for uv, which reads no groups from a project that it does not manage."""
    path = VENV / "groups/pyproject.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(Path("pyproject.toml").read_text().replace("managed = false", "managed = true"))
    return path


def in_groups(project: Path, groups: Iterable[str]) -> list[str]:
    """The arguments that name ``groups`` of ``project`` to uv."""
    return [argument for group in groups for argument in ("--group", f"{project}:{group}")]


def lock_cpu(project: Path) -> None:
    """Write CPU_LOCK as ``make lock`` writes LOCK, with the same versions; exit with one line if that is impossible."""
    compile_ = ("uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--python-version", "3.11")
    options = ("--custom-compile-command", "make install TORCH=cpu", "--output-file", CPU_LOCK, *CPU)
    command = [*compile_, *options, "--constraints", LOCK, str(project), *in_groups(project, ["lint", "audit"])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1].strip().removeprefix("cause: ")
        sys.exit(f"error: no {CPU_LOCK}, as PyTorch's CPU wheels are out of reach ({reason}); leave out TORCH=cpu")


def create() -> None:
    """Create VENV, with uv in it unless uv is installed already.

    Raises:
        CalledProcessError: a program failed, and printed why.
    """
    has_uv = succeeds("uv", "--version")
    if not VENV.exists():
        try:
            # The base Python: this one may be that of the deleted environment.
            base = getattr(sys, "_base_executable", sys.executable)
            run(base, "-m", "venv", *(["--without-pip"] if has_uv else []), VENV)
        except subprocess.CalledProcessError:
            shutil.rmtree(VENV, ignore_errors=True)
            raise
    if not has_uv:
        python = VENV / "bin/python"
        run(python, "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", "requirements-uv.txt")


def install(lock: str, groups: Iterable[str]) -> None:
    """Install ``groups`` into VENV, which is created again if it cannot be used.

    Args:
        lock: the file that pins and hashes every package.
        groups: names of groups in pyproject.toml.

    Raises:
        CalledProcessError: a program failed, and printed why.
        OSError: a file cannot be written.
    """
    here = str(Path.cwd())
    moved = recorded().get("folder", here) != here
    if VENV.exists() and (moved or not python_works()):
        print(f"{VENV} is created again: {'the folder was moved' if moved else 'its Python is gone'}", flush=True)
        shutil.rmtree(VENV)
    create()
    project = managed()
    if not Path(lock).exists():
        lock_cpu(project)
    # An interrupted installation does not count as complete.
    RECORD.unlink(missing_ok=True)
    pip: list[str | Path] = ["uv", "pip", "install", "--quiet", "--python", VENV]
    if not cache_is_writable():
        pip.append("--no-cache")
    # Compile now: containers often set PYTHONDONTWRITEBYTECODE, so that each process would compile its imports.
    exactly = [*pip, "--exact", "--compile-bytecode", "--require-hashes", "--constraint", lock]
    exactly += ["--requirement", project, "--requirement", "requirements-uv.txt", *in_groups(project, groups)]
    run(*exactly, *(CPU if lock == CPU_LOCK else []))
    run(*pip, "--no-deps", "--editable", ".")
    RECORD.write_text(json.dumps(state(lock, groups), indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("group", help="a group of pyproject.toml")
    parser.add_argument("--torch", choices=["cpu"], help="PyTorch without GPU libraries (default: as before)")
    arguments = parser.parse_args()
    check_repository()
    lock = CPU_LOCK if arguments.torch else recorded().get("lock", LOCK)
    groups = sorted({arguments.group, *recorded().get("groups", [])})
    try:
        if not (complete(lock, groups) and python_works()):
            install(lock, groups)
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {error.cmd[0]} failed, see above; `make install` continues where it ended")
    except OSError as error:
        sys.exit(f"error: {error.filename or VENV}: {error.strerror or error}; `make install` needs to write there")
    except KeyboardInterrupt:
        print("interrupted; `make install` continues where it ended", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
