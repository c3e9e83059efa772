"""The changes of a pull request in parameters, metrics and figures, as Markdown for a comment.

``python -m tools.pull_request BASE HEAD`` prints them for two revisions. It needs no data: all three are in git.
Figures are linked from GitHub, in the repository of GITHUB_SERVER_URL and GITHUB_REPOSITORY, which must be public.
"""

import argparse
import html
import os
import re
import shlex
import subprocess
from urllib.parse import quote

from cifar2 import errors
from cifar2.errors import UserError


def section(title: str, table: str) -> str:
    """A table of ``dvc metrics diff`` or ``dvc params diff`` below its title, or "No difference."."""
    rows = table.strip().splitlines()[2:]
    # Without padding: GitHub limits comments to 65,536 characters.
    squeezed = re.sub(r"-{4,}", "---", re.sub(" +", " ", table)).strip()
    return f"### {title}\n\n{squeezed if rows else 'No difference.'}\n"


def changed_figures(diff: str) -> dict[str, str]:
    """The status letter of each path in the output of ``git diff --name-status -z --no-renames``."""
    fields = diff.split("\0")[:-1]
    return dict(zip(fields[1::2], fields[::2], strict=True))


def figure(path: str, status: str, base: str, head: str) -> str:
    """A figure before and after, side by side; ``base`` and ``head`` are the URLs of the commits' files."""
    name = html.escape(path)
    before, after = (f'<img src="{url}/{quote(path)}" width="400" alt="{name}">' for url in (base, head))
    shown = {"A": ("new", after), "D": (before, "gone")}.get(status, (before, after))
    return f"<code>{name}</code>\n\n| base | head |\n|---|---|\n| {shown[0]} | {shown[1]} |\n"


def check(*revisions: str) -> None:
    """Check that this clone has all files of the revisions: DVC waits forever for a file left on the server.

    Raises:
        UserError: a revision or a file of one is missing.
    """
    objects = _printed("git", "rev-list", "--objects", "--no-walk", "--missing=print", *revisions, "--")
    if any(line.startswith("?") for line in objects.splitlines()):
        raise UserError(
            f"{' or '.join(revisions)}: this partial clone lacks files of it, which DVC cannot fetch; "
            "`git config --unset remote.origin.partialclonefilter && git fetch --refetch` fetches them"
        )


def _sha(revision: str) -> str:
    try:
        return _printed("git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").strip()
    except UserError:
        raise UserError(
            f"{revision}: this clone has no such commit; if the clone is shallow, `git fetch --unshallow` fetches it"
        ) from None


def _printed(*command: str, folder: str = ".") -> str:
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    if done.returncode:  # the command has printed why
        raise UserError(f"`{shlex.join(command)}` failed")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="the revision that the pull request is based on")
    parser.add_argument("head", help="the last revision of the pull request")
    arguments = parser.parse_args()
    revisions = [arguments.base, arguments.head]
    base, head = map(_sha, revisions)
    check(*revisions)
    print(f"Changes in this pull request: {base} (base) against {head} (head).\n")
    for title, kind, folder in (
        ("Parameters", "params", "."),
        ("Metrics", "metrics", "."),
        ("Metrics of the extended pipeline", "metrics", "extended"),
    ):
        print(section(title, _printed("dvc", kind, "diff", "--md", *revisions, folder=folder)))
    print("### Figures\n")
    diff = _printed("git", "diff", "--name-status", "-z", "--no-renames", *revisions, "--", "*metrics/figures/*.png")
    files = f"{os.environ['GITHUB_SERVER_URL']}/{os.environ['GITHUB_REPOSITORY']}/raw"
    for path, status in changed_figures(diff).items():
        print(figure(path, status, f"{files}/{base}", f"{files}/{head}"))
    if not diff:
        print("No difference.")


if __name__ == "__main__":
    errors.run(main)
