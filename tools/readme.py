"""Bring README.md up to date: ``make readme``.

Between ``<!-- results -->`` and ``<!-- end -->`` stand tables made from ``metrics/``.  A console block after
``<!-- run -->`` shows commands with their output; they run in a scratch clone of the last commit, one block after
the other, and what they print is put in their place.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

README = Path("README.md")
RESULTS = re.compile(r"(<!-- results -->\n).*?(<!-- end -->)", re.DOTALL)
CONSOLE = re.compile(r"(<!-- run -->\n```console\n)(.*?)(```\n)", re.DOTALL)


def results(metrics: Path) -> str:
    """The tables: every number is read from ``metrics``."""
    configurations = {p.stem: _read(p) for p in sorted((metrics / "train").glob("*.json"))}
    select, evaluate = _read(metrics / "select.json"), _read(metrics / "evaluate/mlp.json")
    prepare, verify = _read(metrics / "prepare.json"), _read(metrics / "verify.json")
    low, high = evaluate["test_accuracy_ci95"]
    seeds = evaluate["n_seeds"]
    lines = [
        "| claim | value | on |",
        "|---|---|---|",
        f"| test accuracy of the final model | **{evaluate['test_accuracy']:.4f}** "
        f"(95 % interval {low:.4f} to {high:.4f}) | {evaluate['n_test']:,} test images, looked at once |",
        f"| test accuracy of the selected configuration, `{select['selected']}` | "
        f"{evaluate['test_accuracy_seeds_mean']:.4f} ± {evaluate['test_accuracy_seeds_std']:.4f} "
        f"(mean and standard deviation) | {seeds} seeds |",
        f"| ROC AUC of the final model | {evaluate['roc_auc']:.4f} | {evaluate['n_test']:,} test images |",
        f"| backpropagation by hand against autograd | relative error at most "
        f"{verify['backprop_vs_autograd_max_rel_error']:.0e} | {verify['n_checks']} checks with the rows below |",
        f"| backpropagation by hand against central differences | relative error at most "
        f"{verify['backprop_vs_finite_difference_max_rel_error']:.0e} | the same |",
        f"| SGD by hand against `torch.optim.SGD` | largest difference {verify['sgd_vs_torch_max_abs_diff']:g} | "
        "whole trajectories, float32 and float64 |",
        f"| training as it is run against backpropagation and SGD by hand | relative difference at most "
        f"{verify['inplace_vs_backprop_and_sgd_max_rel_diff']:.0e} | whole trajectories, float64 |",
        "",
        f"The configurations, trained on {prepare['n_train']:,} images and ranked on {prepare['n_val']:,} others: mean "
        f"over {seeds} seeds, ± one standard error that counts both seeds and images.",
        "",
        "| rank | configuration | validation accuracy | validation loss | training accuracy | gap |",
        "|---|---|---|---|---|---|",
    ]
    ranking = [line.split(",")[:2] for line in (metrics / "ranking.csv").read_text().splitlines()[1:]]
    for rank, name in ranking:
        m = configurations[name]
        lines.append(
            f"| {rank} | `{name}` | {m['val_accuracy']:.4f} ± {m['val_accuracy_se']:.4f} "
            f"| {m['val_loss']:.3f} ± {m['val_loss_se']:.3f} | {m['train_accuracy']:.4f} | {m['gap']:.4f} |"
        )
    return "\n".join(lines) + "\n"


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
    text = RESULTS.sub(lambda m: m[1] + results(root / "metrics") + m[2], README.read_text())
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "cifar2")
        # The clone's own modules come before the installed ones; its terminal is 120 characters wide.
        environment = os.environ | {"PYTHONPATH": str(clone), "COLUMNS": "120"}
        subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)  # noqa: S603, S607
        # The files of DVC's cache and not its memory of runs: what the commands run, they run.
        shutil.copytree(root / ".dvc/cache/files", clone / ".dvc/cache/files")
        subprocess.run(["dvc", "checkout", "--quiet"], cwd=clone, env=environment, check=True)  # noqa: S607
        text = CONSOLE.sub(lambda m: m[1] + transcript(m[2], clone, environment) + m[3], text)
    README.write_text(text)


if __name__ == "__main__":
    main()
