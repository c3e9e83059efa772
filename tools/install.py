"""Create or repair .venv, the environment of the locked, hashed requirements: ``make install``.

This runs before anything is installed, so it needs only Python 3.11 or later. ``.venv/installed`` records the folder,
requirements and packages of a complete installation. If the folder was moved or the environment's Python is gone, the
environment is created again, because its commands contain the absolute path of their Python. If the requirements
changed or a package is missing, the requirements are installed again.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

VENV = Path(".venv")
RECORD = VENV / "installed"
SOURCES = ("requirements.txt", "requirements-uv.txt", "pyproject.toml", "environment/cifar2-path.pth")
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


def state() -> dict[str, Any]:
    """The content of RECORD for the present installation."""
    return {
        "folder": str(Path.cwd()),
        "sources": {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in SOURCES},
        "packages": sorted(path.name for path in VENV.glob("lib/python*/site-packages/*.dist-info")),
    }


def recorded() -> dict[str, Any]:
    """The content of RECORD, or an empty dictionary if no installation was completed."""
    try:
        content: dict[str, Any] = json.loads(RECORD.read_text())
    except (OSError, ValueError):
        return {}
    return content


def complete() -> bool:
    """Whether the environment matches RECORD; it may have more packages."""
    before, now = recorded(), state()
    return before == {**now, "packages": before.get("packages")} and {*before["packages"]} <= {*now["packages"]}


def succeeds(*command: str | Path) -> bool:
    """Whether ``command`` exists and has exit code 0."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def python_works() -> bool:
    """Whether the environment has a working Python of a supported version."""
    return succeeds(VENV / "bin/python", "-c", "import sys; sys.exit(sys.version_info < (3, 11))")


def cache_is_writable() -> bool:
    """Whether uv can write its cache, by default in the home directory; uv fails if it cannot."""
    folder = Path(subprocess.run(["uv", "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip())
    return os.access(next(path for path in (folder, *folder.parents) if path.exists()), os.W_OK)


def install() -> None:
    """Install the requirements into VENV, which is created again if it cannot be used.

    Raises:
        CalledProcessError: a program failed, and printed why.
        OSError: a file cannot be written.
    """
    here = str(Path.cwd())
    moved = recorded().get("folder", here) != here
    if VENV.exists() and (moved or not python_works()):
        print(f"{VENV} is created again: {'the folder was moved' if moved else 'its Python is gone'}", flush=True)
        shutil.rmtree(VENV)
    RECORD.unlink(missing_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in ELSEWHERE} | {"PIP_USER": "0"}

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, env=environment)

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
    if not cache_is_writable():
        environment["UV_NO_CACHE"] = "1"
    # Compile now: containers often set PYTHONDONTWRITEBYTECODE, so that each process would compile its imports.
    sync = ("uv", "pip", "sync", "--quiet", "--compile-bytecode", "--require-hashes")
    run(*sync, "--python", VENV, "requirements.txt", "requirements-uv.txt")
    run("uv", "pip", "install", "--quiet", "--python", VENV, "--no-deps", "--editable", ".")
    # Written last, so that an interrupted installation does not count as complete.
    RECORD.write_text(json.dumps(state(), indent=2))


def main() -> None:
    check_repository()
    try:
        if not (complete() and python_works()):
            install()
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {error.cmd[0]} failed, see above; `make install` continues where it ended")
    except OSError as error:
        sys.exit(f"error: {error.filename or VENV}: {error.strerror or error}; `make install` needs to write there")
    except KeyboardInterrupt:
        print("interrupted; `make install` continues where it ended", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    main()
