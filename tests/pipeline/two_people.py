"""Two people share results over a remote: a directory, an S3 server or an OpenSSH server on loopback.

A pushes what the pipeline made; B pulls, changes a configuration and pushes; A pulls and compares.
"""

import json
import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import boto3
import requests
from moto.server import ThreadedMotoServer

from tests.clone import run

# /usr/sbin is rarely on a user's PATH.
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
NO_SSHD = "there is no sshd; `make servers` installs it"
REGION = "us-east-1"


class Remote(NamedTuple):
    """A team's shared storage."""

    url: str
    # Options of ``dvc remote modify``: shared ones for .dvc/config, and credentials for .dvc/config.local.
    shared: dict[str, str]
    own: dict[str, str]


@contextmanager
def directory(folder: Path) -> Iterator[Remote]:
    """A directory below ``folder``."""
    yield Remote(str(folder / "storage"), {}, {})


@contextmanager
def ssh(folder: Path) -> Iterator[Remote]:
    """A directory below ``folder`` behind an OpenSSH server on loopback, with new keys."""
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    if os.geteuid() == 0:  # as root, sshd needs this folder, which Debian creates at boot
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    # StrictModes would refuse keys below a folder that others can write to, such as /tmp.
    (folder / "sshd_config").write_text(
        f"""
        ListenAddress 127.0.0.1:{port}
        HostKey {folder}/host_key
        AuthorizedKeysFile {folder}/user_key.pub
        AuthenticationMethods publickey
        ForceCommand internal-sftp
        PidFile {folder}/sshd.pid
        StrictModes no
        Subsystem sftp internal-sftp
        UsePAM no
        """
    )
    log = folder / "sshd.log"
    log.touch()
    with subprocess.Popen([SSHD, "-D", "-f", folder / "sshd_config", "-E", log]) as server:
        try:
            while f"port {port}" not in log.read_text():
                assert server.poll() is None, log.read_text()
                time.sleep(0.05)
            yield Remote(f"ssh://127.0.0.1:{port}{folder}/storage", {}, {"keyfile": str(folder / "user_key")})
        finally:
            server.terminate()


@contextmanager
def s3(_: Path) -> Iterator[Remote]:
    """A bucket of an S3 server on loopback that accepts one key."""
    # Moto is a Python package, pinned in requirements.txt; MinIO is not in a package registry.
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line per request
    url = "http://{}:{}".format(*server.get_host_and_port())
    try:
        requests.post(f"{url}/moto-api/reset", timeout=60)
        requests.post(f"{url}/moto-api/reset-auth", data="inf", timeout=60)
        anyone = boto3.Session("anyone", "anyone", region_name=REGION)
        anyone.client("s3", endpoint_url=url).create_bucket(Bucket="team")
        iam = anyone.client("iam", endpoint_url=url)
        iam.create_user(UserName="team")
        policy = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}
        iam.put_user_policy(UserName="team", PolicyName="storage", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName="team")["AccessKey"]
        # From here on it requires keys and checks signatures.
        requests.post(f"{url}/moto-api/reset-auth", data="0", timeout=60)
        yield Remote(
            "s3://team/cifar2",
            {"endpointurl": url, "region": REGION},
            {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]},
        )
    finally:
        server.stop()


REMOTES = {"directory": directory, "s3": s3, "ssh": ssh}


@dataclass
class Person:
    """A person who types commands in ``folder``; ``printed`` is what each command printed the last time."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)

    def types(self, command: str) -> None:
        done = run(self.folder, "sh", "-c", command, check=False, COLUMNS="120", **self.environment)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        self.printed[command] = done.stdout


def add_remote(person: Person, remote: Remote) -> None:
    """Add the remote, and commit that: one person does this once."""
    person.types(f"dvc remote add --default team {remote.url}")
    # Otherwise DVC 3.67 may keep a truncated object after a dropped connection.
    person.types("dvc remote modify team verify true")
    for option, value in remote.shared.items():
        person.types(f"dvc remote modify team {option} {value}")
    person.types("git commit --quiet --all --message 'Where our artifacts are'")


def log_in(person: Person, remote: Remote) -> None:
    """Configure the credentials, outside git: each person does this once per clone."""
    for option, value in remote.own.items():
        person.environment[option.upper()] = value
        person.types(f'dvc remote modify --local team {option} "${option.upper()}"')


def share(a: Person, b: Person, remote: Remote) -> None:
    """Share A's results with B, who has no clone yet, and B's with A; the git repository that they share is a hub."""
    run(a.folder.parent, "git", "clone", "--quiet", "--bare", a.folder.name, "hub")
    a.types("git remote add origin ../hub")
    add_remote(a, remote)
    log_in(a, remote)
    a.types("git push --quiet --set-upstream origin HEAD")
    a.types("dvc push")

    b.folder.mkdir()
    b.types("git clone --quiet ../hub .")
    log_in(b, remote)
    b.types("dvc pull")
    b.types("dvc status")
    b.types("dvc repro")
    b.types("dvc metrics show")
    b.types("dvc exp run --name fine-lr-0.02 --set-param configs.fine.lr=0.02")
    b.types("git commit --quiet --all --message 'fine learns twice as fast' && git push --quiet")
    b.types("dvc push")

    a.types("git pull --quiet")
    a.types("dvc pull")
    a.types("dvc status")
    a.types("dvc metrics diff HEAD~1")
