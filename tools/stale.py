"""Name what changed since dvc.lock was written, and the stages that have to run again: ``make stale``.

Exit code 1 if the default pipeline is stale; for the extended one, which takes an hour or two, there is a warning.

It needs no data, so that a pull request can be checked in a clone that has pulled nothing.  ``dvc repro --dry
--allow-missing`` is meant for that, but takes a folder without its files, as ``data/models/train`` in a clone, for a
changed one, and a folder that is not even there for an unchanged one.  Here a dependency is looked up in DVC's own file
system: git's files and, for what is in no clone, the hash that dvc.lock has of it as an output.
"""

import argparse
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
    """What changed, by the stage that has to run again: parameters, paths, its command.

    Args:
        repo: the project whose stages are compared with its dvc.lock.
        files: the file system of DVC in which dependencies are looked up.

    Raises:
        DvcException: dvc.yaml, dvc.lock or params.yaml cannot be read.
    """
    found = {}
    with lock_repo(repo):
        for stage in repo.index.stages:
            for dep in stage.deps:
                if not isinstance(dep, ParamsDependency):
                    dep.fs, dep.fs_path = files, files.from_os_path(dep.fs_path)
            try:
                entries = stage.status().get(stage.addressing, [])
            except FileNotFoundError as error:  # the output of a stage that never ran has no hash either
                entries = [{"changed deps": {str(error.filename): "new"}}]
            changed = [what for entry in entries for what in _changed(stage, entry)]
            if changed:
                found[stage.addressing] = changed
    return found


def _changed(stage: Stage, entry: str | dict[str, dict[str, str | dict[str, str]]]) -> Iterator[str]:
    """What an entry of DVC's status names: "changed command", "changed deps" or "changed outs"."""
    if isinstance(entry, str):
        yield f"{stage.addressing}'s {entry.split()[-1]}"
        return
    # An output that the cache is for may be there alone, or in neither place.
    fetched = {str(out) for out in stage.outs if out.use_cache and out.hash_info}
    for of_kind in entry.values():
        for path, how in of_kind.items():
            if isinstance(how, dict):
                yield from how  # the parameters of a file
            elif how != "not in cache" and not (how == "deleted" and path in fetched):
                yield path


def changes(found: dict[str, list[str]]) -> str:
    """What changed in any stage, once each."""
    return ", ".join(dict.fromkeys(what for of_stage in found.values() for what in of_stage))


def main() -> None:
    try:
        with Repo() as repo, Repo(EXTENDED) as extended:
            files = DVCFileSystem(repo=repo, subrepos=True)
            found, of_extended = stale(repo, files), stale(extended, files)
    except DvcException as error:
        sys.exit(f"error: {error}")
    for stage, changed in found.items():
        print(f"{stage} must run again: {', '.join(changed)}", flush=True)
    if of_extended:
        print(
            f"warning: the extended pipeline has results of other code or parameters ({changes(of_extended)} changed); "
            "`make extended` renews them in an hour or two",
            flush=True,
        )
    if found:
        sys.exit(
            f"error: {changes(found)} changed since dvc.lock was written: `dvc repro`, "
            "then commit dvc.lock and metrics (CONTRIBUTING.md says when `dvc commit` will do)"
        )
    print("dvc.lock has the results of this code and these parameters")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    errors.run(main)
