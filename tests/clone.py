"""A clone of the project with one epoch and one seed, in which a test runs commands as its user would."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent


def variables() -> dict[str, str]:
    """The variables of a user who has activated the environment."""
    # `make test-slow` passes these on, and a make that finds them prints the folders that it enters.
    ours = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return ours | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "user.name",
        "GIT_CONFIG_VALUE_0": "a",
        "GIT_CONFIG_KEY_1": "user.email",
        "GIT_CONFIG_VALUE_1": "a@example.org",
    }


def run(folder: Path, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as that user would."""
    every = variables() | environment
    return subprocess.run(command, cwd=folder, env=every, check=check, capture_output=True, text=True)


def read(path: Path):
    """A params.yaml as DVC reads it: PyYAML, which follows an older YAML, takes 1e-12 for a text."""
    return YAML(typ="safe").load(path)


def edit(folder: Path, change) -> None:
    path = folder / "params.yaml"
    document = read(path)
    change(document)
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def quick(document) -> None:
    document["train"] |= {"epochs": 1, "seeds": [0], "threads": 1}
    document["features"] |= {"image_size": 32, "flip_average": False}
    document["verify"] |= {"depths": [1, 2], "widths": [3], "sgd_steps": 5, "directions": 2}
    for configuration in [*document["configs"].values(), *document["extended"]["configs"].values()]:
        if "epochs" in configuration:
            configuration["epochs"] = 1
        if "channels" in configuration:
            configuration["channels"] = [8, 16]


def copy(folder: Path) -> Path:
    """The files of the working tree that git does not ignore."""
    listed = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines()
    for name in listed:
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def installed(folder: Path) -> Path:
    """A copy of the working tree in which ``make`` finds everything installed."""
    copy(folder)
    (folder / "tools/install.py").write_text("")
    return folder


def new_clone(folder: Path) -> Path:
    """The working tree as a fresh repository, with the download that ``make repro`` left where there is one."""
    copy(folder)
    if (ROOT / "data/raw").exists():
        shutil.copytree(ROOT / "data/raw", folder / "data/raw", dirs_exist_ok=True)
    edit(folder, quick)
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "--quiet", "-m", "clone")
    return folder


def cached_objects(folder: Path) -> list[Path]:
    """The files of a DVC cache or remote."""
    return [path for path in folder.rglob("*") if path.is_file() and path.parent.parent.name == "md5"]


def cache_is_intact(folder: Path) -> bool:
    """Whether every file of a cache has the content that its name promises; a file being written has another name."""
    return all(
        hashlib.md5(path.read_bytes()).hexdigest() == path.parent.name + path.name.removesuffix(".dir")
        for path in cached_objects(folder)
        if path.suffix != ".tmp"
    )
