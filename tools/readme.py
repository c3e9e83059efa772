"""Bring README.md up to date: ``make readme``.

Between ``<!-- results -->`` and ``<!-- end -->`` stand tables made from ``metrics/``, with training times from
``make bench`` if it ran here.  A console block after ``<!-- run -->`` shows commands with their output; they run in a
scratch clone of the last commit, one block after the other, and what they print is put in their place.
"""

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

from cifar2 import params

README = Path("README.md")
RESULTS = re.compile(r"(<!-- results -->\n).*?(<!-- end -->)", re.DOTALL)
CONSOLE = re.compile(r"(<!-- run -->\n```console\n)(.*?)(```\n)", re.DOTALL)


# The five configurations' accuracy in the report that this began as: one run, without an interval.
ORIGINAL = {"train": 0.95, "val": 0.85, "test": 0.848}
FAMILIES = {
    "mlp": "the original's five, best by validation",
    "mlp_augmented": "the same network, against memorising",
    "cnn": "convolutions, from scratch",
    "transfer": "a new classifier on a network that knows ImageNet",
}


def results(root: Path, times: Mapping[str, str]) -> str:
    """The tables: every number is read from ``metrics/`` and ``beyond/metrics/`` in ``root``, but for ``times``."""
    tables = _claims(root / "metrics"), _families(root, times), _ranking(root), _ablation(root)
    return "\n\n".join("\n".join(table) for table in tables) + "\n"


def _claims(metrics: Path) -> list[str]:
    final, verify = _read(metrics / "evaluate/final.json"), _read(metrics / "verify.json")
    low, high = final["test_accuracy_ci95"]
    everything, unseen = final["subsets"]
    return [
        "| claim | value | on |",
        "|---|---|---|",
        f"| test accuracy of the final model, `{final['config']}` | **{final['test_accuracy']:.4f}** "
        f"(95 % interval {low:.4f} to {high:.4f}) | {everything['n']:,} test images, looked at once |",
        f"| the same without the {everything['n'] - unseen['n']} that have a near-duplicate among the training images "
        f"| {unseen['accuracy']:.4f} | {unseen['n']:,} |",
        f"| ROC AUC of the final model | {everything['roc_auc']:.4f} | {everything['n']:,} test images |",
        f"| backpropagation by hand against autograd | relative error at most "
        f"{verify['backprop_vs_autograd_max_rel_error']:.0e} | {verify['n_checks']} checks with the rows below |",
        f"| backpropagation by hand against central differences | relative error at most "
        f"{verify['backprop_vs_finite_difference_max_rel_error']:.0e} | the same |",
        f"| SGD by hand against `torch.optim.SGD` | largest difference {verify['sgd_vs_torch_max_abs_diff']:g} | "
        "whole trajectories, float32 and float64 |",
        f"| training as it is run against backpropagation and SGD by hand | relative difference at most "
        f"{verify['inplace_vs_backprop_and_sgd_max_rel_diff']:.0e} | whole trajectories, float64 |",
    ]


def _families(root: Path, times: Mapping[str, str]) -> list[str]:
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
                f"| {e['n_parameters']:,} | {times.get(e['config'], '')} |"
            )
    return lines


def times(text: str) -> dict[str, str]:
    """How long configurations take to train, as the table of the families in README ``text`` says."""
    return dict(re.findall(r"^\|[^|]+\| `(\w+)` \|(?:[^|]+\|){4} (\d+ s[^|]*) \|$", text, re.MULTILINE))


def _measured(results: Path) -> dict[str, str]:
    """The same as `make bench` measured it on this machine; nothing if it did not."""
    rows = _read(results)["rows"] if results.exists() else []
    seconds = {row["name"].removeprefix("train_"): row["ours"] for row in rows if row["module"] == "families"}
    on_features = [name for name, c in params.load().configs.items() if c.input == "features"]
    return {
        name: f"{taken:.0f} s" + (f", and {seconds['features']:.0f} s once for the features" * (name in on_features))
        for name, taken in seconds.items()
    }


def _ranking(root: Path) -> list[str]:
    prepare, rows = _read(root / "metrics/prepare.json"), _rows(root / "beyond/metrics/ranking.csv")
    metrics = {p.stem: _read(p) for place in ("", "beyond") for p in (root / place / "metrics/train").glob("*.json")}
    seeds = next(iter(metrics.values()))["n_seeds"]
    return [
        f"All configurations, trained on {prepare['n_train']:,} images and ranked on {prepare['n_val']:,} others: mean "
        f"over {seeds} seeds, ± one standard error that counts both seeds and images.",
        "",
        "| rank | configuration | family | validation accuracy | validation loss | training accuracy | gap |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row['rank']} | `{row['name']}` | {row['family']} "
            f"| {m['val_accuracy']:.4f} ± {m['val_accuracy_se']:.4f} | {m['val_loss']:.3f} ± {m['val_loss_se']:.3f} "
            f"| {m['train_accuracy']:.4f} | {m['gap']:.4f} |"
            for row in rows
            for m in [metrics[row["name"]]]
        ),
    ]


def _ablation(root: Path) -> list[str]:
    whole, *parts = _rows(root / "beyond/metrics/ablation.csv")
    return [
        f"What `{whole['name']}` owes to each of its parts: the validation accuracy lost with one thing changed, "
        "compared image by image and seed by seed, ± one standard error.",
        "",
        "| | validation accuracy | lost |",
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
        lines += _shortened(done.stdout.replace(str(clone), "cifar2").rstrip().splitlines())
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _shortened(printed: list[str]) -> list[str]:
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
    taken = times(text) | _measured(root / "benchmarks/results.json")
    text = RESULTS.sub(lambda m: m[1] + results(root, taken) + m[2], text)
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "cifar2")
        # The clone's own modules come before the installed ones; its terminal is 120 characters wide.
        environment = os.environ | {"PYTHONPATH": str(clone), "COLUMNS": "120"}
        subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)  # noqa: S603, S607
        # The files of DVC's cache and not its memory of runs: what the commands run, they run.
        shutil.copytree(root / ".dvc/cache/files", clone / ".dvc/cache/files")
        subprocess.run(["dvc", "checkout", "--quiet", "dvc.yaml"], cwd=clone, env=environment, check=True)  # noqa: S607
        text = CONSOLE.sub(lambda m: m[1] + transcript(m[2], clone, environment) + m[3], text)
    README.write_text(text)


if __name__ == "__main__":
    main()
