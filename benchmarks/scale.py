"""The overhead of a trial in a sweep, on one node of Ray and on two, against bare processes and ``dvc queue``.

Both nodes are on this machine and share its cores evenly, so that two have the cores of one, and the difference is the
cost of the second node.  Trials that sleep show the overhead of Ray Tune; real trials show how much it matters.
"""

import json
import multiprocessing
import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import NamedTuple

import joblib
import psutil

from benchmarks.measure import Row, row, seconds
from benchmarks.stages import ROOT
from cifar2 import params
from cifar2.dataset import splits as dataset
from cifar2.errors import UserError
from cifar2.sweep import cluster as sweep
from cifar2.sweep.trial import Report, Trials

# The length of a trial that only sleeps, and the overhead that a trial may have, in seconds.
SLEEP, OVERHEAD = 0.010, 0.030
CORES: int = joblib.cpu_count()
# Numbers of trials, and of rounds.
SHORT, REAL, MANY, QUEUED, ROUNDS = 400, 16, 10_000, 8, 3


class Took(NamedTuple):
    """Seconds until the first trial ended, and from then until the last did; the driver's peak memory in MiB."""

    start: float
    rest: float
    memory: float = 0


def short(key: str) -> Iterator[Report]:
    """A trial that only sleeps."""
    time.sleep(SLEEP)
    yield Report(0.5, {"val_accuracy": 0.5}, True)


def real(settings: params.Params) -> Trials:
    """Trials that train a configuration for a few seconds each, as in a sweep."""
    train = settings.train.model_copy(update={"seeds": settings.sweep.seeds})
    splits = [dataset.load(ROOT / f"data/prepared/{name}.safetensors") for name in ("train", "val")]
    configuration = settings.configs[settings.sweep.base].model_copy(update={"epochs": 8})
    return Trials(
        settings.model_copy(update={"train": train}), splits[0], splits[1], dict.fromkeys(_keys(REAL), configuration)
    )


def _keys(n: int) -> list[str]:
    return [f"{i:016x}" for i in range(n)]


def drive(kind: str, n: int, environment: Mapping[str, str]) -> Took:
    """The times of a sweep whose driver is a process of its own, on the cluster in the environment or on a new one.

    Args:
        kind: the kind of the trials, ``short`` or ``real``.
        n: number of trials.
        environment: RAY_ADDRESS and the token, or empty.
    """
    command = [sys.executable, "-m", __name__, kind, str(n)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True, stdout=subprocess.PIPE)
    return Took(*json.loads(done.stdout))


@contextmanager
def cluster(n: int) -> Iterator[tuple[dict[str, str], list[subprocess.Popen[bytes]]]]:
    """``n`` nodes of Ray on this machine, started with ``ray start``, each with its fraction of the cores and memory.

    Yields:
        The environment variables to reach them, with a token, and their processes.
    """
    share = [f"--num-cpus={max(1, CORES // n)}", f"--object-store-memory={500 * 2**20}"]
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex()}
    with ExitStack() as stack:
        nodes = []
        for _ in range(n):
            # A short path: it holds sockets, whose paths have at most 107 characters.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True))
            address = environment.get("RAY_ADDRESS")
            role = [f"--address={address}"] if address else ["--head", "--port=0", "--include-dashboard=false"]
            command = ["ray", "start", "--block", f"--temp-dir={folder}", *role, *share]
            node = subprocess.Popen(
                command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(_end, node)
            nodes.append(node)
            named = Path(folder, "ray_current_cluster")
            while not named.exists() or not named.read_text():
                if node.poll() is not None:
                    raise UserError(f"`{' '.join(command)}` failed")
                time.sleep(0.1)
            environment["RAY_ADDRESS"] = named.read_text().strip()
        yield environment, nodes


def kill(node: subprocess.Popen[bytes]) -> None:
    """Kill all processes of a node, as in a power failure."""
    processes = [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # some end with the others
            process.kill()
    node.wait()


def _end(node: subprocess.Popen[bytes]) -> None:
    node.terminate()
    node.wait()


def bare(trials: Trials) -> Took:
    """The times of the same trials in bare processes, one per core."""
    os.environ["OMP_NUM_THREADS"] = "1"
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(CORES, _hand_over, [trials]) as pool:
        ends = [time.perf_counter() for _ in pool.imap_unordered(_run, list(trials.configurations))]
    del os.environ["OMP_NUM_THREADS"]
    return Took(ends[0] - start, ends[-1] - ends[0])


_handed_over: list[Trials] = []


def _hand_over(trials: Trials) -> None:
    _handed_over.append(trials)


def _run(key: str) -> None:
    for _ in _handed_over[0].run(key):
        pass


def queued(n: int) -> float:
    """Seconds that ``dvc queue`` takes for ``n`` experiments of a stage that sleeps, one per core at a time."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:

        def run(*command: str) -> str:
            return subprocess.run(command, cwd=name, check=True, capture_output=True, text=True).stdout

        def work() -> None:
            for i in range(n):
                run("dvc", "exp", "run", "--queue", "--set-param", f"x={i}")
            run("dvc", "queue", "start", f"--jobs={CORES}")
            while run("dvc", "queue", "status").count("Success") < n:
                time.sleep(0.2)

        Path(name, "params.yaml").write_text("x: 0\n")
        stage = {
            "cmd": f"sleep {SLEEP} && echo {{}} > m.json",
            "params": ["x"],
            "metrics": [{"m.json": {"cache": False}}],
        }
        Path(name, "dvc.yaml").write_text(json.dumps({"stages": {"trial": stage}}))
        run("git", "init", "--quiet")
        run("dvc", "init", "--quiet")
        run("git", "add", ".")
        run("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message=a")
        return seconds(work)


def rows(settings: params.Params) -> list[Row]:
    """The rows about a sweep; for trials that only sleep, ours is the time of a trial without its sleep."""
    nodes: dict[int, tuple[list[float], list[float], list[float]]] = {n: ([], [], []) for n in (1, 2)}
    processes = []
    for _ in range(ROUNDS):
        for n, (costs, starts, took) in nodes.items():
            with cluster(n) as (environment, _):
                found = drive("short", SHORT, environment)
                costs.append(_cost(found, SHORT))
                starts.append(found.start)
                took.append(drive("real", REAL, environment).rest)
        processes.append(bare(real(settings)).rest)
    few, many = drive("short", 100, {}), drive("short", MANY, {})
    by_dvc = [1000 * (queued(QUEUED) / QUEUED - SLEEP / CORES) for _ in range(ROUNDS)]
    allowed = [1000 * OVERHEAD] * ROUNDS
    return [
        *(
            row(
                f"overhead_{n}",
                f"a trial on {n} node(s) of Ray, against the allowed overhead",
                costs,
                allowed,
                "ms",
                "<= 1",
            )
            for n, (costs, _, _) in nodes.items()
        ),
        *(
            row(
                f"real_{n}",
                f"{REAL} real trials on {n} node(s) of Ray, {3600 * (REAL - 1) / min(took):.0f} an hour, against bare "
                "processes",
                took,
                processes,
                "s",
                ">= 0.9",
                faster=True,
            )
            for n, (_, _, took) in nodes.items()
        ),
        row("first_trial", "until the first trial ends, on two nodes against one", nodes[2][1], nodes[1][1], "s"),
        row("driver_memory", f"peak with {MANY:,} trials against 100", [many.memory], [few.memory], "MiB"),
        row(
            "overhead_many",
            f"with {MANY:,} trials, against the allowed overhead",
            [_cost(many, MANY)],
            allowed[:1],
            "ms",
            "<= 1",
        ),
        row("dvc_queue", "a trial on Ray against an experiment of `dvc queue`", nodes[1][0], by_dvc, "ms"),
    ]


def _cost(took: Took, n: int) -> float:
    """Milliseconds per trial, without its sleep."""
    return 1000 * (took.rest / (n - 1) - SLEEP / CORES)


def main() -> None:
    """Drive a sweep for :func:`drive`, and print its times as JSON."""
    kind, n = sys.argv[1], int(sys.argv[2])
    run = short if kind == "short" else real(params.load()).run
    ends: list[float] = []
    start = time.perf_counter()
    with redirect_stdout(sys.stderr):
        sweep.run(_keys(n), run, {"cpu": 1}, None, lambda key, outcome: ends.append(time.perf_counter()))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(Took(ends[0] - start, ends[-1] - ends[0], memory)))


if __name__ == "__main__":
    main()
