"""The default run, from nothing but the downloaded images, against the one of an earlier commit; takes hours.

It also computes the run with five seeds, and on machines with other numbers of cores: the program that schedules the
stages runs stages that only sleep, a hundred times faster than they ran here.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import count, islice
from pathlib import Path
from statistics import median

import joblib

from benchmarks.measure import Row, interleaved, row, seconds
from benchmarks.stages import ROOT, run
from cifar2 import files
from cifar2.figures import canvas
from cifar2.params import Params
from tools import repro

# The commit before the pipeline was made faster.
OLD = "31a4cd4"
ROUNDS = 3
MORE_SEEDS = 5
CORES = (1, 2, 4, 8, 16)
FASTER = 100
TIMELINE = Path(__file__).parent / "timeline.png"


def rows(params: Params) -> list[Row]:
    """The rows about the default run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        turns = {commit: partial(_default_run, folder, commit) for commit in (OLD, "HEAD")}
        found = interleaved(turns, ROUNDS, warm_up=0)
        timeline = {stage: repro.Ran(*ran) for stage, ran in files.read_json(folder / repro.TIMELINE).items()}
        graph = repro.graph(run(["dvc", "dag", "--dot"], folder))
    canvas.write(TIMELINE, draw(timeline))
    n_seeds = len(params.train.seeds)
    computed = {f"{cores} cores": scheduled(graph, timeline, cores, n_seeds) for cores in CORES}
    more = scheduled(graph, longer(timeline, MORE_SEEDS / n_seeds), joblib.cpu_count(), MORE_SEEDS)
    return [
        row(
            "default_run",
            f"`make repro` from nothing but the images, against commit {OLD}",
            found["HEAD"],
            found[OLD],
            "s",
            "<= 0.75",
            timeline=timeline,
            computed=computed,
        ),
        row(
            "default_run_five_seeds",
            f"the same, with {MORE_SEEDS} seeds against {n_seeds}; computed from the times of the stages",
            [more],
            [median(found[OLD])],
            "s",
            "<= 1",
        ),
    ]


def longer(timeline: dict[str, repro.Ran], factor: float) -> dict[str, repro.Ran]:
    """The same stages, where training takes ``factor`` times as long."""
    return {
        stage: ran._replace(end=ran.start + factor * (ran.end - ran.start)) if stage.startswith("train@") else ran
        for stage, ran in timeline.items()
    }


def _default_run(folder: Path, commit: str) -> float:
    """The time of a default run of ``commit`` in a new clone, which stays in ``folder``."""
    shutil.rmtree(folder)
    run(["git", "clone", "--quiet", str(ROOT), str(folder)], ROOT)
    run(["git", "checkout", "--quiet", commit], folder)
    shutil.copytree(ROOT / "data/raw", folder / "data/raw", dirs_exist_ok=True)
    command = [sys.executable, "-m", "tools.repro", "--jobs", str(joblib.cpu_count())]  # the default of both
    # The stages of the old commit import what is installed, unless told otherwise.
    variables = os.environ | {"PYTHONPATH": str(folder)}
    return seconds(lambda: subprocess.run(command, cwd=folder, env=variables, check=True))


def scheduled(graph: repro.Graph, timeline: dict[str, repro.Ran], cores: int, n_seeds: int) -> float:
    """The seconds that the stages of ``timeline`` would take on a number of cores, on which others cost nothing."""
    work = {stage: ran.cores * (ran.end - ran.start) for stage, ran in timeline.items()}

    def sleep(stage: str, share: int) -> bool:
        ran = timeline[stage]
        # A second core speeds up the extraction of features, and the training of one of several seeds.
        most = {"features": cores, "train": n_seeds}.get(stage.partition("@")[0], 1)
        time.sleep((ran.end - ran.start) * min(ran.cores, most) / min(share, most) / FASTER)
        return True

    known = {stage: graph[stage] & timeline.keys() for stage in timeline}
    return FASTER * seconds(lambda: repro.run_all(known, work, cores, cores, sleep))


def cores_of(timeline: dict[str, repro.Ran]) -> dict[str, list[int]]:
    """The cores that each stage had: the first ones that were free."""
    free: dict[int, float] = {}
    found = {}
    for stage, (n, start, end) in sorted(timeline.items(), key=lambda item: item[1].start):
        found[stage] = list(islice((core for core in count() if free.get(core, 0) <= start), n))
        free |= dict.fromkeys(found[stage], end)
    return found


def draw(timeline: dict[str, repro.Ran]) -> canvas.Figure:
    """Which stage ran when, and on which cores; a long stage is named in its bar, the others in the legend."""
    cores = cores_of(timeline)
    kinds = list(dict.fromkeys(stage.partition("@")[0] for stage in cores))
    n_cores, last = 1 + max(map(max, cores.values())), max(ran.end for ran in timeline.values())
    figure = canvas.Figure(figsize=(11, 1.6 + 0.6 * n_cores), layout="constrained")
    axes, colours = figure.subplots(), canvas.mpl.colormaps["tab20"]
    for stage, of_stage in cores.items():
        kind, start = stage.partition("@")[0], timeline[stage].start
        length = timeline[stage].end - start
        axes.barh(of_stage, length, 0.9, start, color=colours(kinds.index(kind)), edgecolor="white", label=kind)
        text = stage.replace("@", "\n")
        if length > 0.01 * last * max(map(len, text.splitlines())):
            axes.text(start + length / 2, sum(of_stage) / len(of_stage), text, ha="center", va="center")
    axes.set(xlabel="seconds from the start of `make repro`", ylabel="core", yticks=range(n_cores), xlim=(0, last))
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=6)
    return figure
