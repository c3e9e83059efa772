"""Report changes since dvc.lock was written, and the stages that must run again: ``make stale``.

The exit code is 1 if the default pipeline is stale. A stale extended pipeline, which runs an hour or two, is a warning.

This needs no data, so that a pull request can be checked in a clone that pulled nothing. ``dvc repro --dry
--allow-missing`` is meant for that, but reports a folder without its files (``data/models/train`` in a clone) as
changed, and a missing folder as unchanged. Here dependencies are looked up in DVC's file system: git's files and, for
outputs, the hashes in dvc.lock.
"""

import argparse
import os
import sys
from collections.abc import Iterator

from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.fs.dvc import DVCFileSystem
from dvc.repo import Repo, lock_repo
from dvc.stage import Stage

from cifar2 import errors

EXTENDED = "extended"


def stale(repo: Repo, files: DVCFileSystem) -> dict[str, list[str]]:
    """The changed parameters, paths and commands of each stage that must run again.

    Args:
        repo: the project whose stages are compared with its dvc.lock.
        files: the DVC file system in which dependencies are looked up.

    Raises:
        DvcException: dvc.yaml, dvc.lock or params.yaml cannot be read.
    """
    changed = {}
    with lock_repo(repo):
        for stage in repo.index.stages:
            for dep in stage.deps:
                if not isinstance(dep, ParamsDependency):
                    dep.fs, dep.fs_path = files, files.from_os_path(dep.fs_path)
            try:
                entries = stage.status().get(stage.addressing, [])
            except FileNotFoundError as error:  # the output of a stage that never ran, without a hash
                entries = [{"changed deps": {str(error.filename): "new"}}]
            names = [name for entry in entries for name in _changed(stage, entry)]
            if names:
                changed[stage.addressing] = names
    return changed


def _changed(stage: Stage, entry: str | dict[str, dict[str, str | dict[str, str]]]) -> Iterator[str]:
    """The changes in an entry of DVC's status: "changed command", "changed deps" or "changed outs"."""
    if isinstance(entry, str):
        yield f"{stage.addressing}'s {entry.split()[-1]}"
        return
    # A cached output may be missing from the working tree or the cache, or from both.
    fetched = {str(out) for out in stage.outs if out.use_cache and out.hash_info}
    for of_kind in entry.values():
        for path, how in of_kind.items():
            if isinstance(how, dict):
                yield from how  # the parameters of a file
            elif how != "not in cache" and not (how == "deleted" and path in fetched):
                yield os.path.relpath(path)  # DVC names a file outside its project by the whole path


def changes(by_stage: dict[str, list[str]]) -> str:
    """The changes of all stages, without repetition."""
    return ", ".join(dict.fromkeys(name for names in by_stage.values() for name in names))


def main() -> None:
    try:
        with Repo() as repo, Repo(EXTENDED) as extended:
            files = DVCFileSystem(repo=repo, subrepos=True)
            by_stage, of_extended = stale(repo, files), stale(extended, files)
    except DvcException as error:
        sys.exit(f"error: {error}")
    for stage, changed in by_stage.items():
        print(f"{stage} must run again: {', '.join(changed)}", flush=True)
    if of_extended:
        print(
            f"warning: the extended pipeline is stale ({changes(of_extended)} changed); "
            "`make extended` runs it in an hour or two",
            flush=True,
        )
    if by_stage:
        sys.exit(
            f"error: {changes(by_stage)} changed since dvc.lock was written: `dvc repro`, "
            "then commit dvc.lock and metrics (CONTRIBUTING.md says when `dvc commit` will do)"
        )
    print("dvc.lock is up to date with the code and parameters")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    errors.run(main)
