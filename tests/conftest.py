"""A small copy of the project to run stages in: few random images, small networks, few epochs."""

import csv
import fcntl
import io
import os
import pty
import re
import resource
import runpy
import shutil
import signal
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import pytest
import torch
import yaml
from hypothesis import HealthCheck, configuration, settings
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from cifar2 import files, params
from cifar2.dataset import splits
from cifar2.evaluation import selection
from cifar2.figures import canvas
from tests.browser import CHROMIUM
from tests.clone import ROOT, new_clone, read, run

SIZES = {"train": 60, "val": 24, "test": 30}
# Features of efficientnet_lite0.
N_FEATURES = 1280
# The models that `evaluate` measures in the project below, by name.
MODELS = {"fine": "data/models/train/fine.safetensors"} | {
    name: f"data/models/{name}.safetensors"
    for name in ("mlp", "mlp_augmented", "cnn", "transfer", "final_mlp", "final")
}
EVALUATED = list(MODELS)
NEAR_DUPLICATES = """\
test_index,other_set,other_index,mirrored,similarity
3,train,10,False,0.9512
17,val,2,True,0.7345
8,val,2,False,0.7120
"""
# An image of one pixel.
BLANK = io.BytesIO()
Image.new("L", (1, 1)).save(BLANK, "PNG")

# The background jobs of a shell, and their children, ignore Ctrl-C by default.
signal.signal(signal.SIGINT, signal.default_int_handler)

# pytest's workers share the cores; more threads than cores would mostly wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the stages that tests start

# Enough resamples to see what is selected.
selection.RESAMPLES = 20

# The same examples in every run, no deadline, and nothing left behind.
settings.register_profile(
    "cifar2",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("cifar2")
configuration.set_hypothesis_home_dir(ROOT / ".pytest_cache/hypothesis")


def random_split(n: int, seed: int, classes: tuple[str, ...] = ("airplane", "bird")) -> splits.Split:
    """Random images whose brightness depends on the class, so that a network can learn it."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(classes), (n,), generator=generator)
    noise = torch.randint(0, 100, (n, 3, 32, 32), generator=generator)
    images = (noise + 120 * labels.view(-1, 1, 1, 1) // (len(classes) - 1)).to(torch.uint8)
    return splits.Split(images, labels, torch.arange(n), classes)


def random_features(split: splits.Split, extractor: params.Features, seed: int) -> splits.Split:
    """Random features for the images of ``split``, whose values depend on the class."""
    noise = torch.randn(len(split.labels), N_FEATURES, generator=torch.Generator().manual_seed(seed))
    return replace(split, x=0.5 * noise + split.labels.view(-1, 1), features=extractor)


def small(configuration: dict[str, Any]) -> dict[str, Any]:
    """The same kind of configuration for small networks, few epochs and small batches."""
    kept = {key: value for key, value in configuration.items() if key not in ("epochs", "batch_size")}
    sizes = {"channels": [4, 8], "image_size": 32}
    return kept | {key: value for key, value in sizes.items() if key in kept}


def table(path: Path | str) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with Path(path).open() as file:
        return list(csv.DictReader(file))


class Project:
    """The working directory of a test, with params.yaml, prepared data and features."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.params = read(ROOT / "params.yaml")
        self.params["train"] |= {"hidden": [8, 8], "epochs": 2, "batch_size": 16, "seeds": [0, 1], "threads": 1}
        self.params["configs"] = {name: small(c) for name, c in self.params["configs"].items()}
        self.params["configs"]["convolutional"] = small(self.params["extended"]["configs"]["convolutional"])
        self.params["extended"] = {
            "configs": {},
            "ablation": {
                "downwards": {"base": "augmented", "changes": {"without_flip": {"flip": False}}},
                "upwards": {"base": "precise", "changes": {"longer": {"epochs": 3}}},
            },
            "replication": {"configs": ["fine", "smooth"], "n_seeds": 3},
        }
        self.params["features"] |= {"backbone": "efficientnet_lite0", "image_size": 32, "flip_average": False}
        self.params["verify"] |= {
            "depths": [1, 2],
            "widths": [3],
            "batch_sizes": [1, 4],
            "sgd_steps": 5,
            "directions": 2,
        }
        self.params["checkpoints"] = {"seconds": 0}
        self.params["sweep"] |= {"trials": 3}
        self.write_params()
        extractor = params.Features(**self.params["features"])
        for seed, (name, n) in enumerate(SIZES.items()):
            split = random_split(n, seed)
            splits.save(folder / f"data/prepared/{name}.safetensors", split)
            splits.save(folder / f"data/features/{name}.safetensors", random_features(split, extractor, seed))
        (folder / "data/prepared/near_duplicates.csv").write_text(NEAR_DUPLICATES)

    def write_params(self) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(self.params, sort_keys=False))

    def snapshot(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def standard_input() -> Iterator[Callable[[Path], None]]:
    """Make a file the standard input of this process."""
    before = os.dup(0)

    def redirect(path: Path) -> None:
        with path.open("rb") as file:
            os.dup2(file.fileno(), 0)

    yield redirect
    os.dup2(before, 0)
    os.close(before)


@pytest.fixture
def run_stage(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Run a script of stages/ in this process, as ``python stages/NAME ARGUMENTS`` would.

    To draw the figures takes most of the time, so they are blank unless the test is marked ``figures``.
    """
    if not request.node.get_closest_marker("figures"):
        monkeypatch.setattr(canvas, "write", lambda path, figure: files.write(path, BLANK.getvalue()))

    def run(name: str, *arguments: str) -> None:
        script = ROOT / "stages" / name
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        runpy.run_path(str(script), run_name="__main__")

    return run


@pytest.fixture
def fails_with(run_stage: Callable[..., None]) -> Callable[..., str]:
    """Run a stage that must fail with one line starting with "error: " and exit code 1; returns the line."""

    def run(name: str, *arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            run_stage(name, *arguments)
        message = stop.value.code
        assert isinstance(message, str), "sys.exit with a text is exit code 1 and that text on stderr"
        assert message.startswith("error: ")
        assert "\n" not in message
        return message

    return run


@pytest.fixture
def small_files() -> Callable[[int], AbstractContextManager[None]]:
    """A limit on the size of files, for this process and its children: a full disk."""

    @contextmanager
    def limit(n_bytes: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Callable[[], list[str]]]]:
    """Make a terminal of so many columns stderr; returns a function that reads the lines drawn on it."""
    monkeypatch.delenv("COLUMNS", raising=False)
    files: list[TextIO] = []

    def new(columns: int) -> Callable[[], list[str]]:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        files.extend((os.fdopen(master), os.fdopen(slave, "w")))
        monkeypatch.setattr(sys, "stderr", files[-1])

        def lines() -> list[str]:
            os.write(slave, b"\0")  # everything before it may arrive in several pieces
            drawn = b""
            while not drawn.endswith(b"\0"):
                drawn += os.read(master, 10_000)
            return re.split(r"[\r\n]+", drawn[:-1].decode().strip())

        return lines

    yield new
    for file in files:
        file.close()


@pytest.fixture
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Project, Callable[[], None]], Project]:
    """Do something to a new project the first time, and copy the result the next times."""

    def run(name: str, project: Project, do: Callable[[], None]) -> Project:
        cache = tmp_path_factory.getbasetemp() / name
        if not cache.exists():
            do()
            shutil.copytree(project.folder, cache)
        shutil.copytree(cache, project.folder, dirs_exist_ok=True)
        return project

    return run


@pytest.fixture
def trained(project: Project, run_stage: Callable[..., None], once: Callable[..., Project]) -> Project:
    """The project after ``train`` for every configuration."""
    return once("trained", project, lambda: [run_stage("train.py", name) for name in project.params["configs"]])


@pytest.fixture
def selected(trained: Project, run_stage: Callable[..., None], once: Callable[..., Project]) -> Project:
    """The project after ``select_model`` and ``refit`` too."""
    return once(
        "selected",
        trained,
        lambda: [run_stage("select_model.py"), *(run_stage("refit.py", name) for name in ("final_mlp", "final"))],
    )


@pytest.fixture
def evaluated(selected: Project, run_stage: Callable[..., None], once: Callable[..., Project]) -> Project:
    """The project after ``evaluate`` for every family and for the final model."""
    return once("evaluated", selected, lambda: [run_stage("evaluate.py", model) for model in MODELS.values()])


@pytest.fixture
def to_report(evaluated: Project, run_stage: Callable[..., None], once: Callable[..., Project]) -> Project:
    """The project with all inputs of ``report``, and a final model that misclassifies some images."""

    def do() -> None:
        run_stage("verify.py")
        counts = {name: {"airplane": n // 2, "bird": n - n // 2} for name, n in SIZES.items()}
        sizes = {f"n_{name}": n for name, n in SIZES.items()}
        document = {"own_images": False, **sizes, "class_counts": counts, "all_classes": counts}
        files.write_json(Path("metrics/prepare.json"), document)
        counts = {"n_test": 3, "n_test_of_train": 2, "n_test_of_val": 1, "n_val_of_train": 4, "n_test_of_test": 5}
        files.write_json(Path("metrics/near_duplicates.json"), counts)
        for seed, name in enumerate(("samples", "near_duplicates")):
            image = random_split(1, seed).x[0]
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(f"metrics/figures/{name}.png")
        # Brighter and brighter, whatever the class: predictions of any confidence, correct and incorrect.
        path = Path("data/prepared/test.safetensors")
        test = splits.load(path)
        brightness = torch.linspace(0, 255, SIZES["test"]).to(torch.uint8).view(-1, 1, 1, 1)
        splits.save(path, replace(test, x=brightness.expand_as(test.x).contiguous()))
        run_stage("evaluate.py", MODELS["final"])
        run_stage("explain.py")

    return once("to_report", evaluated, do)


@pytest.fixture
def reported(to_report: Project, run_stage: Callable[..., None], once: Callable[..., Project]) -> Project:
    """The project after ``report`` too."""
    return once("reported", to_report, lambda: run_stage("report.py"))


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the project where the pipeline has run and is committed; a test that changes it changes it back."""
    folder = new_clone(tmp_path_factory.mktemp("clone"))
    run(folder, sys.executable, "-m", "tools.repro", "--jobs", "2")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "--quiet", "--allow-empty", "-m", "results")
    return folder


@pytest.fixture(scope="module")  # while it is open, asyncio is in use
def chromium() -> Iterator[Browser]:
    """A real browser (see ``tests.browser``)."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
