"""What GitHub would run: the steps' shell as it runs there, in a small repository."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.clone import installed, run
from tests.conftest import ROOT
from tests.tools.test_stale import commit, replace, small_pipelines

WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").iterdir()}
WORKFLOW = WORKFLOWS["pull_request"]
JOBS = WORKFLOW["jobs"]
ALL_STEPS = [step for workflow in WORKFLOWS.values() for job in workflow["jobs"].values() for step in job["steps"]]
STEPS = {step["name"]: step for job in JOBS.values() for step in job["steps"] if "name" in step}
(UPGRADE,) = (step for step in ALL_STEPS if step.get("name") == "Pull request")
# What `make` and the tools need.
COPIED = ["Makefile", "tools/__init__.py", "tools/stale.py", "tools/pull_request.py"]
EMPTY = ["tools/install.py"]  # nothing is installed


# What a runner sets, besides the files that a step writes.
RUNNER = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "owner/cifar-2", "GITHUB_SHA": "sha"}


def run_step(step: dict[str, str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As a runner does with `shell: bash`."""
    script = folder.parent / "step.sh"
    script.write_text(step["run"])
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
    return run(folder, *command, check=False, **RUNNER, **environment)


@pytest.fixture
def checkout(tmp_path_factory, tmp_path, monkeypatch):
    """A clone, in which `make install` does nothing."""
    run(tmp_path, "git", "clone", "--quiet", str(small_pipelines(tmp_path_factory)), "checkout")
    folder = tmp_path / "checkout"
    for name in [*COPIED, *EMPTY]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes() if name in COPIED else b"")
    (folder / ".git/info/exclude").write_text("\n".join([*COPIED, *EMPTY, "__pycache__"]))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.slow
def test_the_gate_lets_a_lock_pass_that_is_of_its_code(checkout):
    done = run_step(STEPS["dvc.lock"], checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "::error::" not in done.stdout


@pytest.mark.slow
def test_the_gate_fails_with_one_annotation_that_says_what_to_do(checkout):
    replace("params.yaml", "lr: 0.1", "lr: 0.2")
    done = run_step(STEPS["dvc.lock"], checkout)
    assert done.returncode != 0
    (annotation,) = re.findall("^::error::(.*)$", done.stdout, re.MULTILINE)
    assert annotation.startswith("lr changed since dvc.lock was written: `dvc repro`, ")
    assert 0 <= done.stdout.index("train must run again: lr\n") < done.stdout.index("::error::")
    assert "Traceback" not in done.stdout + done.stderr


@pytest.fixture
def merge(checkout):
    """What is checked out for a pull request whose base branch has gone on since: the merge of the two."""
    Path("metrics/figures/old.png").write_text("a figure that gets another name")
    commit(checkout, "an old figure")
    base = run(checkout, "git", "rev-parse", "HEAD").stdout.strip()
    run(checkout, "git", "switch", "--quiet", "--create", "change")
    run(checkout, "git", "mv", "metrics/figures/old.png", "metrics/figures/new.png")
    replace("params.yaml", "lr: 0.1", "lr: 0.2")
    for project in (checkout, checkout / "extended"):
        run(project, "dvc", "repro", "--quiet")
    commit(checkout, "another learning rate")
    head = run(checkout, "git", "rev-parse", "HEAD").stdout.strip()
    run(checkout, "git", "switch", "--quiet", "main")
    Path("metrics/figures/later.png").write_text("later")
    commit(checkout, "a later figure")
    run(checkout, "git", "switch", "--quiet", "--detach")
    run(checkout, "git", "merge", "--quiet", "--no-edit", "change")
    for project in ("", "extended/"):
        shutil.rmtree(f"{project}.dvc/cache")
    return checkout, base, head


def differences(folder, tmp_path):
    """Run the step that makes the comment; returns its process, the comment, and the output of the step."""
    files = {name: tmp_path / name for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    for path in files.values():
        path.touch()
    environment = {name: str(path) for name, path in files.items()}
    done = run_step(STEPS["Differences from the base branch"], folder, **environment)
    return done, *(path.read_text() for path in files.values())


@pytest.mark.slow
def test_the_differences_are_those_of_the_pull_request_alone(merge, tmp_path):
    folder, base, head = merge
    done, text, output = differences(folder, tmp_path)
    assert done.returncode == 0, done.stderr
    assert output == f"comment<<sha\n{text}sha\n"
    for row in (
        "| Path | Param | base | head |",
        "| params.yaml | lr | 0.1 | 0.2 |",
        "| metrics/train.json | accuracy | 0.9 | 0.8 | -0.1 |",
        "| metrics/train/b.json | accuracy | 0.9 | 0.8 | -0.1 |",
    ):
        assert row in text.splitlines()
    assert re.findall('src="https://github.com/owner/cifar-2/raw/([^"]*)"', text) == [
        f"{base}/metrics/figures/curve.png",
        f"{head}/metrics/figures/curve.png",
        f"{head}/metrics/figures/new.png",
        f"{base}/metrics/figures/old.png",
    ]


@pytest.mark.slow
def test_without_a_difference_the_comment_says_so(checkout, tmp_path):
    run(checkout, "git", "commit", "--quiet", "--allow-empty", "--message", "nothing")
    run(checkout, "git", "switch", "--quiet", "--detach", "HEAD^")
    run(checkout, "git", "merge", "--quiet", "--no-ff", "--message", "merge", "main")
    done, text, _ = differences(checkout, tmp_path)
    assert done.returncode == 0, done.stderr
    assert text.count("No difference.") == 4


GH = """#!/bin/sh
printf '%s\\n' "$@" > "$RECORD/arguments"
cat > "$RECORD/input"
"""


def test_the_comment_is_posted_as_it_is_or_replaces_the_last(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gh").write_text(GH)
    (tmp_path / "bin/gh").chmod(0o755)
    text = '| "$(touch pwned)" | `touch pwned` | $HOME | \\n |\n\n### Figures'
    values = {
        "${{ github.token }}": "token",
        "${{ github.event.pull_request.number }}": "7",
        "${{ needs.check.outputs.comment }}": text,
    }
    environment = {name: values[value] for name, value in STEPS["Comment"]["env"].items()}
    folder = tmp_path / "empty"
    folder.mkdir()
    done = run_step(
        STEPS["Comment"],
        folder,
        PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin",
        RECORD=str(tmp_path),
        **environment,
    )
    assert done.returncode == 0, done.stderr
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments[:5] == ["pr", "comment", "7", "--repo", "owner/cifar-2"]
    assert {"--edit-last", "--create-if-none"} < set(arguments)
    assert arguments[-2:] == ["--body-file", "-"]
    assert (tmp_path / "input").read_text() == f"{text}\n"
    assert not list(folder.iterdir())


@pytest.fixture
def upgrade(checkout, tmp_path):
    """Run the step that makes the pull request of an upgrade; returns what ``gh`` was asked, and the pushed commit."""
    run(tmp_path, "git", "clone", "--quiet", "--bare", "checkout", "origin.git")
    run(checkout, "git", "remote", "set-url", "origin", str(tmp_path / "origin.git"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gh").write_text(GH.replace("> ", ">> "))
    (tmp_path / "bin/gh").chmod(0o755)

    def step():
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        done = run_step(UPGRADE, checkout, PATH=path, RECORD=str(tmp_path))
        assert done.returncode == 0, done.stderr
        asked = tmp_path / "arguments"
        pushed = run(tmp_path / "origin.git", "git", "log", "--format=%s", "main..dependencies", check=False).stdout
        return asked.read_text().splitlines() if asked.exists() else [], pushed

    return step


@pytest.mark.slow
def test_an_upgrade_becomes_a_pull_request_with_differences(upgrade, checkout):
    replace("params.yaml", "lr: 0.1", "lr: 0.2")
    run(checkout, "dvc", "repro", "--quiet")
    asked, pushed = upgrade()
    assert pushed == "Upgrade the locked packages\n"
    assert asked[:4] == ["pr", "create", "--head", "dependencies"]
    assert asked[-2:] == ["--body-file", "differences.md"]
    assert "| metrics/train.json | accuracy | 0.9 | 0.8 | -0.1 |" in Path("differences.md").read_text().splitlines()


@pytest.mark.slow
def test_without_a_newer_package_there_is_no_pull_request(upgrade):
    assert upgrade() == ([], "")


def test_the_comment_is_of_the_step_that_makes_it():
    assert JOBS["check"]["outputs"] == {"comment": "${{ steps.differences.outputs.comment }}"}
    assert STEPS["Differences from the base branch"]["id"] == "differences"
    assert JOBS["comment"]["needs"] == "check"


def test_the_job_with_write_access_runs_no_code_of_the_request():
    assert WORKFLOW[True] == "pull_request", "`on` is a boolean to YAML 1.1; pull_request_target would lend its token"
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in JOBS["check"]
    assert JOBS["comment"]["permissions"] == {"pull-requests": "write"}
    assert [step["name"] for step in JOBS["comment"]["steps"]] == ["Comment"]
    assert JOBS["check"]["steps"][0]["with"]["persist-credentials"] is False


def test_the_job_that_publishes_runs_no_code_of_the_repository():
    workflow = WORKFLOWS["pages"]
    build, deploy = workflow["jobs"]["build"], workflow["jobs"]["deploy"]
    assert workflow["permissions"] == {"contents": "read"}
    assert "permissions" not in build
    assert build["steps"][0]["with"]["persist-credentials"] is False
    assert deploy["permissions"] == {"pages": "write", "id-token": "write"}
    assert [step["uses"].split("@")[0] for step in deploy["steps"]] == ["actions/deploy-pages"]
    assert workflow[True].keys() == {"push", "workflow_dispatch"}, "no pull request is published"


@pytest.mark.slow
def test_the_published_folder_is_the_built_site(tmp_path):
    folder = installed(tmp_path / "checkout")
    *_, report, site, upload = WORKFLOWS["pages"]["jobs"]["build"]["steps"]
    assert report["run"] == "make repro"
    (folder / "metrics/report.html").write_text("a report")
    done = run_step(site, folder)
    assert done.returncode == 0, done.stderr
    assert upload["uses"].startswith("actions/upload-pages-artifact@")
    published = folder / upload["with"]["path"]
    assert (published / "report.html").read_text() == "a report"
    assert (published / "index.html").exists()


def test_a_pull_request_from_a_fork_is_not_commented_on():
    assert "github.event.pull_request.head.repo.full_name == github.repository" in JOBS["comment"]["if"]


def test_no_value_is_pasted_into_shell():
    """actionlint knows of those that the author of a pull request chooses; here none is."""
    assert not [step for step in ALL_STEPS if "${{" in step.get("run", "")]
    assert all(workflow["defaults"] == {"run": {"shell": "bash"}} for workflow in WORKFLOWS.values())


def test_actions_are_pinned_by_commit():
    used = [step["uses"] for step in ALL_STEPS if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used)


def test_one_check_that_fails_does_not_hide_the_next():
    for name, target in {"dvc.lock": "stale", "Lint": "lint", "Tests": "test"}.items():
        assert STEPS[name]["run"].startswith(f"make {target}")
        assert STEPS[name]["if"] == "${{ !cancelled() }}"
