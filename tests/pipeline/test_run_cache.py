"""Results that nobody committed: through a remote as an experiment, on one machine by a cache that its users share."""

import functools
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from tests import clone
from tests.conftest import ROOT
from tests.pipeline.conftest import MODEL, Repository

pytestmark = pytest.mark.slow

METRICS = ["metrics/train/fine.json", "metrics/curves/fine.csv"]
# A DVC project within this one whose files nobody here has, as the extended pipeline was run by few.
BEYOND = {
    ".dvc/config": "",
    "dvc.yaml": "stages: {long: {cmd: sleep 3600, outs: [long]}}",
    "dvc.lock": "{schema: '2.0', stages: {long: {cmd: sleep 3600, outs: [{path: long, hash: md5, md5: "
    "fedcba9876543210fedcba9876543210}]}}}",
    ".gitignore": "/long",
}


def set_lr(repository, lr):
    clone.edit(repository.folder, lambda document: document["configs"]["fine"].update(lr=lr))


def results(repository):
    return {name: (repository.folder / name).read_bytes() for name in ("dvc.lock", MODEL, *METRICS)}


@pytest.fixture
def team(repository, tmp_path):
    """The repository with a remote for git and one for DVC, and a colleague's clone."""
    git = clone.run
    # Named by its whole path: DVC looks for what a commit names relatively from the root of the file system.
    repository.dvc("remote", "modify", "team", "url", str(repository.remote))
    (repository.folder / "extended/.dvc").mkdir(parents=True)
    for name, text in BEYOND.items():
        (repository.folder / "extended" / name).write_text(text)
    git(repository.folder, "git", "add", ".")
    git(repository.folder, "git", "commit", "--quiet", "-m", "extended")
    git(tmp_path, "git", "clone", "--quiet", "--bare", "repository", "origin")
    git(repository.folder, "git", "remote", "add", "origin", "../origin")
    git(tmp_path, "git", "clone", "--quiet", "origin", "colleague")
    return repository, Repository(tmp_path / "colleague")


def take_over(colleague):
    """Turn the experiment into a branch, with its files."""
    colleague.dvc("exp", "pull", "origin", "faster")
    colleague.dvc("exp", "branch", "faster", "faster")
    clone.run(colleague.folder, "git", "switch", "--quiet", "faster")
    colleague.dvc("checkout")


def test_an_experiment_gives_a_colleague_all_results(team):
    repository, colleague = team
    set_lr(repository, 0.011)
    repository.dvc("repro")
    assert "Running stage" not in repository.dvc("exp", "run", "--name", "faster")
    repository.dvc("exp", "push", "origin", "faster")
    assert "faster" in colleague.dvc("exp", "list", "--all-commits", "origin")
    take_over(colleague)
    assert colleague.is_clean()
    assert "Running stage" not in colleague.dvc("repro")
    assert results(colleague) == results(repository)


def test_an_experiment_older_than_the_remote_needs_to_run_again(team):
    """DVC pushes to the remote of the experiment's own commit; without one it pushes no files, and does not say so."""
    repository, colleague = team
    git = functools.partial(clone.run, repository.folder, "git")
    repository.dvc("remote", "remove", "team")
    git("commit", "--quiet", "--all", "-m", "no remote yet")
    experiment = ["exp", "run", "--name", "faster", "--set-param", "configs.fine.lr=0.011"]
    assert "Running stage 'train'" in repository.dvc(*experiment)
    expected = results(repository)
    git("checkout", "--quiet", ".")
    repository.dvc("remote", "add", "--default", "team", str(repository.remote))
    git("commit", "--quiet", "--all", "-m", "where our artifacts are")
    git("push", "--quiet", "origin", "HEAD")
    repository.dvc("exp", "push", "origin", "faster")
    assert not repository.stored(MODEL, "remote").exists()
    assert "Running stage 'train'" not in repository.dvc(*experiment)
    assert results(repository) == expected
    repository.dvc("exp", "push", "origin", "faster")
    # Of two experiments of a name, DVC takes the one that starts from HEAD.
    clone.run(colleague.folder, "git", "pull", "--quiet")
    take_over(colleague)
    assert results(colleague) == expected


def test_a_pushed_run_cache_spares_stages_without_metrics(team):
    for each in team:
        set_lr(each, 0.011)
    repository, colleague = team
    repository.dvc("repro")
    repository.dvc("push", "--run-cache")
    printed = colleague.dvc("repro", "--pull")
    assert "Running stage 'train'" in printed
    assert "Stage 'select_model' is cached" in printed
    assert results(colleague) == results(repository)


def test_the_run_cache_keeps_all_stages_but_two():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    run = {name: stage.get("do", stage) for name, stage in stages.items() if not stage.get("frozen")}
    outs = {name: stage.get("outs", []) for name, stage in run.items()}
    assert {name for name in outs if any(isinstance(out, dict) for out in outs[name])} == {
        "prepare",
        "near_duplicates",
        "select_model",
    }


GROUP = f"cifar2-{os.getpid()}"


class User(Repository):
    """A user of the machine, with an account and a clone at home."""

    def __init__(self, role, machine, groups):
        self.name, self.machine = f"{GROUP}-{role}", machine
        command = ["useradd", "--create-home", "--user-group", "--groups", groups, self.name]
        subprocess.run(command, check=True, capture_output=True)
        account = pwd.getpwnam(self.name)
        super().__init__(Path(account.pw_dir, "cifar2"))
        self.uid = account.pw_uid

    def run(self, *command):
        """Run a command as after a login, in the environment; new files are the user's alone, unless told otherwise."""
        login = ["setpriv", "--reuid", self.name, "--regid", self.name, "--init-groups", "--reset-env"]
        activated = ["sh", "-c", '. "$0/bin/activate" && exec "$@"', self.machine / "venv"]
        return subprocess.run(
            [*login, *activated, *command], cwd=self.folder, umask=0o077, capture_output=True, text=True
        )

    def may_open(self, path, mode):
        return self.run("python", "-c", f"open({str(path)!r}, {mode!r})").returncode == 0


def make_environment(folder, user):
    """An environment that ``user`` may run, of this Python or else the system's, with the packages of this one."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        shutil.rmtree(folder, ignore_errors=True)
        if Path(python).exists():
            subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
            (packages,) = folder.glob("lib/python3.*/site-packages")
            (packages / "packages.pth").write_text(sysconfig.get_path("purelib"))
            (folder / "bin/dvc").write_text('#!/bin/sh\nexec python -m dvc "$@"\n')
            (folder / "bin/dvc").chmod(0o755)
            if user.run("python", "-c", "import dvc.cli, torch").returncode == 0:
                return
    pytest.skip("other users may not run this Python, and the system has none of its version")


@pytest.fixture(scope="module")
def machine(committed):
    """Two users of one cache and a stranger; each of the two ran something that the other did not."""
    if os.geteuid() or not shutil.which("useradd"):
        pytest.skip("only root can add users and run programs as them, with useradd")
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))  # pytest's own folders are root's alone
        folder.chmod(0o755)
        subprocess.run(["groupadd", GROUP], check=True)
        cleanup.callback(subprocess.run, ["groupdel", GROUP], check=True)
        users = []
        for role, groups in (("one", GROUP), ("two", GROUP), ("stranger", "")):
            users.append(User(role, folder, groups))
            remove = ["userdel", "--force", "--remove", users[-1].name]
            cleanup.callback(subprocess.run, remove, check=True, capture_output=True)
        cache = folder / "cache"
        cache.mkdir()
        shutil.chown(cache, group=GROUP)
        cache.chmod(0o2770)
        first = Repository(folder / "first")
        shutil.copytree(committed.folder, first.folder, ignore=shutil.ignore_patterns("cache", "tmp", ".checkpoints"))
        first.dvc("cache", "dir", "--local", str(cache))
        first.dvc("config", "--local", "cache.shared", "group")
        for user in users:
            shutil.copytree(first.folder, user.folder)
            for path in (user.folder, *user.folder.rglob("*")):
                shutil.chown(path, user.name, user.name)
        make_environment(folder / "venv", users[0])
        ran = {}
        for lr, user in ((0.011, users[0]), (0.012, users[1])):
            set_lr(user, lr)
            assert "Running stage 'train'" in user.dvc("repro")
            ran[lr] = results(user)
        yield cache, users, ran


def test_users_of_one_cache_share_results_and_metrics(machine):
    _, (one, two, _), ran = machine
    for user, lr in ((one, 0.012), (two, 0.011)):
        set_lr(user, lr)
        assert "Running stage" not in user.dvc("repro")
        assert results(user) == ran[lr]
        assert user.is_clean()


def test_objects_of_a_shared_cache_are_read_only_for_the_group(machine):
    cache, (*users, stranger), _ = machine
    objects = clone.cached_objects(cache)
    assert {path.stat().st_uid for path in objects} == {user.uid for user in users}
    for path in objects:
        assert path.stat().st_mode & 0o777 == 0o444
        assert [user.may_open(path, "rb") for user in users] == [True, True]
        assert [user.may_open(path, "r+b") for user in users] == [False, False]
        assert not stranger.may_open(path, "rb")


def test_folders_of_a_shared_cache_are_writable_for_the_group(machine):
    cache, *_ = machine
    for path in cache.rglob("*"):
        assert path.group() == GROUP
        if path.is_dir():
            assert path.stat().st_mode & 0o7777 == 0o2775
