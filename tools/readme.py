"""Bring README.md up to date: ``make readme``.

Between ``<!-- claims -->`` or ``<!-- results -->`` and ``<!-- end -->`` stand tables made from ``metrics/``, with what
``make bench`` measured if it ran here.  A console block after ``<!-- run -->`` shows commands with their output; they
run in a scratch clone of the last commit, one block after the other, and what they print is put in their place.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cifar2 import errors, params
from cifar2.evaluation import selection

README = Path("README.md")
TABLES = re.compile(r"(<!-- (claims|results) -->\n).*?(<!-- end -->)", re.DOTALL)
CONSOLE = re.compile(r"(<!-- run -->\n```console\n)(.*?)(```\n)", re.DOTALL)


# The five configurations' accuracy in the report that this began as: one run, without an interval.
ORIGINAL = {"val": 0.85, "test": 0.848}
# What an epoch is called among what was measured.
SPEED = "an epoch"
FAMILIES = {
    "mlp": "the original's five, best by validation",
    "mlp_augmented": "the same network, against memorising",
    "cnn": "convolutions, from scratch",
    "transfer": "a new classifier on a network that knows ImageNet",
}


def tables(root: Path, measured: Mapping[str, str]) -> dict[str, str]:
    """Every number is read from ``metrics/`` and ``beyond/metrics/`` in ``root``, but for ``measured``."""
    results = _families(root, measured), _ranking(root), _ablation(root)
    return {
        "claims": "\n".join(_claims(root, measured)) + "\n",
        "results": "\n\n".join("\n".join(table) for table in results) + "\n",
    }


def filled(text: str, root: Path, measured: Mapping[str, str]) -> str:
    """README ``text`` with its tables made anew."""
    made = tables(root, measured)
    return TABLES.sub(lambda m: m[1] + made[m[2]] + m[3], text)


def _claims(root: Path, measured: Mapping[str, str]) -> list[str]:
    final, verify = _read(root / "metrics/evaluate/final.json"), _read(root / "metrics/verify.json")
    low, high = final["test_accuracy_ci95"]
    everything, unseen = final["subsets"]
    lines = [
        "| claim | value | how |",
        "|---|---|---|",
        f"| test accuracy of the final model, `{final['config']}` | **{final['test_accuracy']:.4f}** "
        f"(95 % interval {low:.4f} to {high:.4f}) | {everything['n']:,} test images, looked at once; one model, with a "
        "seed that selection never saw |",
        f"| the same without near-duplicates of training images | {unseen['accuracy']:.4f} | {unseen['n']:,} images |",
    ]
    original = f"; the original report: {ORIGINAL['test']}, one run"
    for path, what, beside in (
        ("metrics/evaluate/mlp", "of the original's network, the best of its five settings", original),
        ("metrics/evaluate/mlp_augmented", "of the same network, augmented", ""),
        ("beyond/metrics/evaluate/cnn", "of convolutions from scratch", ""),
    ):
        e = _read(root / f"{path}.json")
        low, high = e["subsets"][0]["seeds_ci95"]
        lines.append(
            f"| test accuracy {what}, `{e['config']}` | **{e['subsets'][0]['seeds_mean']:.4f}** ({low:.4f} to "
            f"{high:.4f}) | mean over {e['n_seeds']} seeds, {measured.get(e['config'], 'not timed')} each{beside} |"
        )
    return [
        *lines,
        "| backpropagation by hand against autograd, and against central differences | relative error at most "
        f"{verify['backprop_vs_autograd_max_rel_error']:.0e}, "
        f"{verify['backprop_vs_finite_difference_max_rel_error']:.0e} | {verify['n_checks']} checks with the next |",
        f"| SGD by hand against `torch.optim.SGD` | largest difference {verify['sgd_vs_torch_max_abs_diff']:g} | "
        "whole trajectories, float32 and float64 |",
        f"| an epoch of training against the best of plain PyTorch | {measured.get(SPEED, 'not timed')} | "
        "`make bench`, interleaved |",
        "",
        f"On two cores of an AMD EPYC without a GPU, Linux, Python 3.11, {', '.join(_versions(root))}.",
    ]


def _versions(root: Path) -> list[str]:
    """Of what the numbers depend on, as the lock has them."""
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", (root / "requirements.txt").read_text(), re.MULTILINE))
    return [f"{name} {pinned[name]}" for name in ("torch", "torchvision", "dvc")]


def _families(root: Path, measured: Mapping[str, str]) -> list[str]:
    lines = [
        "What each step beyond the original brings, on the test images: mean over the seeds with a 95 % interval that "
        "counts both seeds and images. Training time is that of one seed on two cores (AMD EPYC), the whole stage.",
        "",
        "| step | configuration | test accuracy | without near-duplicates | validation | parameters | training |",
        "|---|---|---|---|---|---|---|",
        f"| the original report, one run | `fine` | {ORIGINAL['test']} | | {ORIGINAL['val']} | 1,643,234 | |",
    ]
    for family, step in FAMILIES.items():
        paths = [root / folder / f"metrics/evaluate/{family}.json" for folder in ("", "beyond")]
        # The best within the default run, and the best of all; often the same one.
        best = {e["config"]: e for e in [_read(path) for path in paths if path.exists()]}
        for e in best.values():
            everything, unseen = e["subsets"]
            low, high = everything["seeds_ci95"]
            lines.append(
                f"| {step} | `{e['config']}` | **{everything['seeds_mean']:.4f}** ({low:.4f} to {high:.4f}) "
                f"| {unseen['seeds_mean']:.4f} | {e['val_accuracy']:.4f} "
                f"| {e['n_parameters']:,} | {measured.get(e['config'], '')} |"
            )
    return lines


def told(text: str) -> dict[str, str]:
    """What README ``text`` says of times: how long configurations take to train, and how fast an epoch is."""
    times = dict(re.findall(r"^\|[^|]+\| `(\w+)` \|(?:[^|]+\|){4} (\d+ s[^|]*) \|$", text, re.MULTILINE))
    speed = re.search(r"\| (\d\.\d\d times as fast [^|]*) \|", text)
    return times | ({SPEED: speed[1]} if speed else {})


def _measured(results: Path) -> dict[str, str]:
    """The same as `make bench` measured it on this machine; nothing if it did not."""
    rows = {row["name"]: row for row in _read(results)["rows"]} if results.exists() else {}
    on_features = [name for name, c in params.load().configs.items() if c.input == "features"]
    found = {}
    for name, row in rows.items():
        if row["module"] == "families":
            configuration = name.removeprefix("train_")
            once = f", and {rows['features']['ours']:.0f} s once for the features" * (configuration in on_features)
            found[configuration] = f"{row['ours']:.0f} s{once}"
    if "epoch_vs_best_torch" in rows:
        row = rows["epoch_vs_best_torch"]
        low, high = row["spread"]
        found[SPEED] = f"{row['ratio']:.2f} times as fast (quartiles of {row['rounds']} rounds {low:.2f} to {high:.2f})"
    return found


def _ranking(root: Path) -> list[str]:
    prepare, settings = _read(root / "metrics/prepare.json"), params.load(root / "params.yaml")
    # The extended pipeline's baseline is one of the others.
    configs = settings.configs | {name: c for name, c in settings.beyond.items() if name != "baseline"}
    metrics = {
        name: _read(root / ("beyond" if name in settings.beyond else "") / f"metrics/train/{name}.json")
        for name in configs
    }
    seeds = next(iter(metrics.values()))["n_seeds"]
    return [
        f"All configurations, trained on {prepare['n_train']:,} images and ranked on {prepare['n_val']:,} others: mean "
        f"over {seeds} seeds, ± one standard error that counts both seeds and images.",
        "",
        "| rank | configuration | family | validation accuracy | validation loss | training accuracy | gap |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row.rank} | `{row.name}` | {configs[row.name].family} "
            f"| {m['val_accuracy']:.4f} ± {m['val_accuracy_se']:.4f} | {m['val_loss']:.3f} ± {m['val_loss_se']:.3f} "
            f"| {m['train_accuracy']:.4f} | {m['gap']:.4f} |"
            for row in selection.rank(metrics)
            for m in [row.metrics]
        ),
    ]


def _ablation(root: Path) -> list[str]:
    whole, *parts = _rows(root / "beyond/metrics/ablation.csv")
    return [
        "Ablation of `augmented`: the drop in validation accuracy when one part of it is changed, compared image by "
        "image and seed by seed, ± one standard error.",
        "",
        "| | validation accuracy | drop |",
        "|---|---|---|",
        f"| as it is | {float(whole['val_accuracy']):.4f} ± {float(whole['val_accuracy_se']):.4f} | |",
        *(
            f"| `{row['name']}` "
            f"| {float(row['val_accuracy']):.4f} ± {float(row['val_accuracy_se']):.4f} "
            f"| {float(row['difference']):+.4f} ± {float(row['difference_se']):.4f} |"
            for row in parts
        ),
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def commands(block: str) -> list[str]:
    """The lines of a console block that are typed."""
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def transcript(block: str, clone: Path, environment: dict[str, str]) -> str:
    """Type the commands of a console block in ``clone``, and return the block with what they print."""
    lines = []
    for command in commands(block):
        lines.append(f"$ {command}")
        done = subprocess.run(  # noqa: S602 (the README's own commands)
            command, shell=True, cwd=clone, env=environment, check=True, text=True, capture_output=True
        )
        lines += shortened(done.stdout.replace(str(clone), "cifar2").rstrip().splitlines())
    return "\n".join(line.rstrip() for line in lines) + "\n"


def shortened(printed: list[str]) -> list[str]:
    """Lines of training logs become one line of dots."""
    shown: list[str] = []
    for line in printed:
        text = "..." if re.search(r"seed \d+ epoch \d+:", line) else line
        if text != "..." or shown[-1:] != ["..."]:
            shown.append(text)
    return shown


def main() -> None:
    root = Path.cwd()
    text = README.read_text()
    text = filled(text, root, told(text) | _measured(root / "benchmarks/results.json"))
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "cifar2")
        # A terminal of 120 characters.
        environment = os.environ | {"COLUMNS": "120", "PYTHONHASHSEED": "0"}
        subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
        # The files of DVC's cache and not its memory of runs: what the commands run, they run.
        shutil.copytree(root / ".dvc/cache/files", clone / ".dvc/cache/files")
        subprocess.run(["dvc", "checkout", "--quiet"], cwd=clone, env=environment, check=True)
        text = CONSOLE.sub(lambda m: m[1] + transcript(m[2], clone, environment) + m[3], text)
    README.write_text(text)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    errors.run(main)
