"""Two people and a third share results by way of a directory, an S3 server and an OpenSSH server, all of them real.

And what DVC makes of lines that break in the middle, of objects that were corrupted there, and of wrong credentials.
"""

import hashlib
import math
import random
import re
import shutil
import socket
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest
from dvc.repo import Repo
from moto.moto_server import threaded_moto_server

from tests.clone import cache_is_intact, run
from tests.pipeline import two_people
from tests.pipeline.conftest import MODEL, SPLITS, Repository
from tests.pipeline.two_people import REMOTES, Person, Remote

pytestmark = pytest.mark.slow

WITH_SSHD = pytest.mark.skipif(not two_people.SSHD, reason=two_people.NO_SSHD)
SERVERS = ["s3", pytest.param("ssh", marks=WITH_SSHD)]


@pytest.fixture(scope="module", params=["directory", *SERVERS])
def story(request, committed, tmp_path_factory):
    """Two people after they shared results, and their remote."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(committed.folder, folder / "a")
    run(folder / "a", "dvc", "remote", "remove", "team")
    with REMOTES[request.param](folder) as remote:
        after = SimpleNamespace(a=Person(folder / "a"), b=Person(folder / "b"), remote=remote)
        two_people.share(after.a, after.b, remote)
        yield after


UP_TO_DATE = "Data and pipelines are up to date.\n"


def stored(repository):
    """What lies in its remote under names that DVC looks for, read as DVC reads it, by path."""
    with Repo(str(repository)) as repo:
        odb = repo.cloud.get_remote_odb()
        paths = [path for path in odb.fs.find(odb.path) if re.search(r"/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?$", path)]
        return {path: odb.fs.fs.cat_file(path) for path in paths}


def have_their_md5(objects):
    return all(
        hashlib.md5(content).hexdigest() == "".join(path.removesuffix(".dir").split("/")[-2:])
        for path, content in objects.items()
    )


def test_who_pulls_has_everything_and_nothing_to_do(story):
    assert story.b.printed["dvc status"] == UP_TO_DATE
    assert "Running stage" not in story.b.printed["dvc repro"]
    assert "metrics/train/fine.json" in story.b.printed["dvc metrics show"]


def test_a_changed_configuration_reruns_its_dependents_only(story):
    (command,) = [command for command in story.b.printed if command.startswith("dvc exp run")]
    assert re.findall("Running stage '(.*)'", story.b.printed[command]) == ["train", "select_model"]


def test_who_pulls_the_change_sees_what_it_did(story):
    compared = story.a.printed["dvc metrics diff HEAD~1"]
    assert re.search(r"^metrics/train/fine\.json +val_loss +\S+ +\S+ +-?0\.\d+$", compared, re.MULTILINE)
    assert story.a.printed["dvc status"] == UP_TO_DATE
    results = Repository(story.a.folder).outputs()
    assert results == Repository(story.b.folder).outputs()
    assert str(MODEL) in results


def test_what_was_pushed_has_the_md5_that_it_is_named_after(story):
    objects = stored(story.a.folder)
    assert len(objects) > len(SPLITS)
    assert have_their_md5(objects)


def test_no_credentials_are_in_git(story):
    hub, a = story.a.folder.parent / "hub", story.a.folder
    commits = run(hub, "git", "rev-list", "--all").stdout.split()

    def is_in_git(text, *paths):
        return run(hub, "git", "grep", "--fixed-strings", text, *commits, "--", *paths, check=False).returncode == 0

    assert is_in_git(story.remote.url)
    for option, value in story.remote.own.items():
        assert value in (a / ".dvc/config.local").read_text()
        assert not is_in_git(value)
        assert not is_in_git(option, ".dvc")
    assert run(a, "git", "check-ignore", ".dvc/config.local").stdout == ".dvc/config.local\n"


class Wire:
    """A port on loopback that leads to another one, until so many bytes have gone through it either way."""

    def __init__(self, port):
        self.left, self.to, self.ends = math.inf, port, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:  # closed
                return
            if self.left <= 0:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.to))
            self.ends += [client, server]
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self.carry, args=ends, daemon=True).start()

    def carry(self, here, there):
        with suppress(OSError):
            while data := here.recv(65536):
                self.left -= len(data)
                if self.left <= 0:
                    break
                there.sendall(data)
        self.cut([here, there] if self.left > 0 else self.ends)

    def cut(self, ends):
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()
        self.cut(self.ends)


# Botocore tries five times, and s3fs as often again.
GIVE_UP_SOON = {"AWS_MAX_ATTEMPTS": "1"}


class Team:
    """A repository with two files in DVC, which are pushed; the remote is behind a wire."""

    def __init__(self, folder, remote):
        self.a = Person(folder / "a")
        port = re.search(r"127\.0\.0\.1:(\d+)", f"{remote.url} {remote.shared}")[1]
        self.wire = Wire(int(port))
        shared = {option: value.replace(port, str(self.wire.port)) for option, value in remote.shared.items()}
        self.remote = Remote(remote.url.replace(port, str(self.wire.port)), shared, remote.own)
        generator = random.Random(0)
        self.contents = {name: generator.randbytes(2_000_000) for name in ("one", "other")}
        self.a.folder.mkdir()
        for name, content in self.contents.items():
            (self.a.folder / name).write_bytes(content)
        self.a.types("git init --quiet && dvc init --quiet && dvc add --quiet one other && git add .")
        two_people.add_remote(self.a, self.remote)
        two_people.log_in(self.a, self.remote)
        self.a.types("dvc push")

    def has(self, person):
        """What ``person`` has of the two files; of anything else there is nothing, in the cache neither."""
        assert cache_is_intact(person.folder / ".dvc/cache")
        found = {name: (person.folder / name).read_bytes() for name in self.contents if (person.folder / name).exists()}
        assert found.items() <= self.contents.items()
        return list(found)

    def fails(self, person, command, **environment):
        """What DVC says of a command that fails."""
        done = run(person.folder, "dvc", command, check=False, **GIVE_UP_SOON | environment)
        assert done.returncode != 0
        assert "Traceback" not in done.stdout + done.stderr
        return done.stderr

    def is_cut_off(self, person, command):
        """The same when the wire breaks in the middle of the second file."""
        self.wire.left = 3_000_000
        try:
            complaint = self.fails(person, command)
            assert self.wire.left <= 0
        finally:
            self.wire.left = math.inf
        return complaint


@pytest.fixture(scope="module", params=SERVERS)
def team(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("team")
    with REMOTES[request.param](folder) as remote:
        team = Team(folder, remote)
        yield team
        team.wire.close()


@pytest.fixture
def b(team, tmp_path):
    """Somebody with a new clone and the team's credentials."""
    person = Person(tmp_path)
    person.types(f"git clone --quiet {team.a.folder} .")
    two_people.log_in(person, team.remote)
    return person


@pytest.fixture
def storage(team):
    """The remote's file system, as DVC has it."""
    with Repo(str(team.a.folder)) as repo:
        yield repo.cloud.get_remote_odb().fs.fs


def test_an_interrupted_push_is_completed_by_the_next_one(team, b, storage):
    for path in stored(team.a.folder):
        storage.rm_file(path)
    complaint = team.is_cut_off(team.a, "push")
    assert "ERROR: failed to push data to the cloud - 1 files failed to upload" in complaint
    assert len(stored(team.a.folder)) == 1
    assert have_their_md5(stored(team.a.folder))
    team.a.types("dvc push")
    assert len(stored(team.a.folder)) == 2
    b.types("dvc pull")
    assert team.has(b) == ["one", "other"]


def test_an_interrupted_pull_is_completed_by_the_next_one(team, b):
    complaint = team.is_cut_off(b, "pull")
    assert complaint.startswith("ERROR: failed to transfer '")
    assert len(team.has(b)) < 2
    b.types("dvc pull")
    assert team.has(b) == ["one", "other"]


def test_what_was_damaged_in_the_remote_is_not_pulled(team, b, storage):
    path, content = next(iter(stored(team.a.folder).items()))
    storage.pipe_file(path, content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    assert "ERROR: failed to pull data from the cloud" in team.fails(b, "pull")
    assert len(team.has(b)) < 2
    storage.pipe_file(path, content)
    b.types("dvc pull")
    assert team.has(b) == ["one", "other"]


def test_who_has_another_key_is_told_so_and_gets_nothing(team, b):
    if "keyfile" in team.remote.own:
        b.types("ssh-keygen -q -t ed25519 -N '' -f other_key && dvc remote modify --local team keyfile other_key")
    else:
        b.types("dvc remote modify --local team secret_access_key guessed")
    complaint = team.fails(b, "pull")
    assert re.match("ERROR: failed to connect to .*(Forbidden|Permission denied)", complaint)
    assert team.has(b) == []


@pytest.mark.parametrize("team", ["s3"], indirect=True)
def test_credentials_may_come_from_the_environment(team, tmp_path):
    b = Person(tmp_path)
    b.types(f"git clone --quiet {team.a.folder} .")
    key, secret = team.remote.own.values()
    team.fails(b, "pull", AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY="guessed")
    b.environment = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    b.types("dvc pull")
    assert team.has(b) == ["one", "other"]


def without_checksums(application):
    """An S3 server that rejects the checksums that boto3 sends and asks for by default since version 1.36."""

    def answer(request, start_response):
        names = ("HTTP_X_AMZ_CHECKSUM", "HTTP_X_AMZ_SDK_CHECKSUM", "HTTP_X_AMZ_TRAILER")
        if any(name.startswith(names) for name in request) or "aws-chunked" in request.get("HTTP_CONTENT_ENCODING", ""):
            start_response("501 Not Implemented", [("Content-Type", "application/xml")])
            return [b"<Error><Code>NotImplemented</Code><Message>A header is not implemented</Message></Error>"]
        return application(request, start_response)

    return answer


def test_an_s3_server_without_checksums_needs_two_variables(tmp_path, monkeypatch):
    application = threaded_moto_server.DomainDispatcherApplication
    monkeypatch.setattr(
        threaded_moto_server, "DomainDispatcherApplication", lambda create: without_checksums(application(create))
    )
    variables = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")
    for name in variables:
        monkeypatch.setenv(name, "when_required")
    with REMOTES["s3"](tmp_path) as remote:
        team = Team(tmp_path, remote)
        assert have_their_md5(stored(team.a.folder))
        b = Person(tmp_path / "b")
        team.a.types("git clone --quiet . ../b")
        two_people.log_in(b, team.remote)
        with monkeypatch.context() as patch:
            patch.delenv(variables[1])
            assert "A header is not implemented" in team.fails(b, "pull")
            assert team.has(b) == []
        b.types("dvc pull")
        assert team.has(b) == ["one", "other"]
        monkeypatch.delenv(variables[0])
        team.a.types("echo new > new && dvc add --quiet new")
        assert "A header is not implemented" in team.fails(team.a, "push")
        team.wire.close()
