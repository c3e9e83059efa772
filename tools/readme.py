"""Update the tables, code and transcripts in README.md and docs/: ``make readme``.

* Between ``<!-- TABLE -->`` and ``<!-- end -->``: a table made from ``metrics/`` and ``params.yaml``.
* After ``<!-- code FILE:NAME -->``: the body of that function, from the source.
* After ``<!-- run -->``: commands with their output.  They run in a scratch clone of the last commit, one clone for
  each document, one block after the other.
"""

import argparse
import ast
import csv
import json
import os
import re
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cifar2 import errors, params
from cifar2.errors import UserError
from cifar2.evaluation import selection

# The folder of the extended pipeline.
EXTENDED = "extended"

TABLES = re.compile(r"(<!-- (claims|steps|all steps|ranking|ablation|budget) -->\n).*?(<!-- end -->)", re.DOTALL)
CODE = re.compile(r"(<!-- code (\S+):(\S+) -->\n```python\n).*?(```\n)", re.DOTALL)
CONSOLE = re.compile(r"(<!-- run -->\n```console\n)(.*?)(```\n)", re.DOTALL)

# The accuracies of `fine` in the original report: one run, without an interval.
ORIGINAL = {"val": 0.85, "test": 0.848}
STEPS = {
    "mlp": "the original network, selected from its five configurations",
    "mlp_augmented": "the same network, augmented and regularised",
    "cnn": "a CNN trained from scratch",
    "transfer": "a network pretrained on ImageNet",
}


def documents(root: Path) -> list[Path]:
    """README.md and the pages in docs/."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def filled(text: str, root: Path) -> str:
    """``text`` with its tables and code from the files in ``root``."""
    made = {
        "claims": _claims,
        "steps": _steps,
        "all steps": _all_steps,
        "ranking": _ranking,
        "ablation": _ablation,
        "budget": _budget,
    }
    text = TABLES.sub(lambda m: m[1] + made[m[2]](root) + m[3], text)
    return CODE.sub(lambda m: m[1] + source(root / m[2], m[3]) + m[4], text)


def source(path: Path, name: str) -> str:
    """The body of function ``name`` (or ``Class.method``) in ``path``, without its docstring.

    Raises:
        UserError: there is no such function.
    """
    text = path.read_text()
    node: Any = ast.parse(text)
    for part in name.split("."):
        node = next((child for child in node.body if getattr(child, "name", None) == part), None)
        if node is None:
            raise UserError(f"{path} has no {name}; README.md or a file in docs/ shows it")
    first = node.body[1] if ast.get_docstring(node) else node.body[0]
    return textwrap.dedent("\n".join(text.splitlines()[first.lineno - 1 : node.end_lineno])) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, ["---"] * len(header), *rows))


def _claims(root: Path) -> str:
    verify = _read(root / "metrics/verify.json")
    final, mlp = (_read(root / f"metrics/evaluate/{name}.json") for name in ("final", "mlp"))
    all_images, distinct = final["subsets"]
    rows = [
        (
            "hand-written backpropagation against autograd",
            f"largest relative error {verify['backprop_vs_autograd_max_rel_error']:.1e}",
            f"in float64; {verify['n_checks']} checks in these four rows",
        ),
        (
            "the same against central differences",
            f"largest relative error {verify['backprop_vs_finite_difference_max_rel_error']:.1e}",
            "in float64",
        ),
        (
            "hand-written SGD against `torch.optim.SGD`",
            f"difference {verify['sgd_vs_torch_max_abs_diff']:g}",
            "`sgd.py`; after every step, in float32 and float64",
        ),
        (
            "in-place epoch, which trains the MLPs, against backpropagation and SGD",
            f"largest relative difference {verify['inplace_vs_backprop_and_sgd_max_rel_diff']:.1e}",
            "after two epochs, in float64",
        ),
        (
            f"test accuracy of the hand-written network, `{mlp['config']}`",
            f"**{mlp['subsets'][0]['seeds_mean']:.4f}** {_interval(mlp['subsets'][0]['seeds_ci95'])}",
            f"selected by the rule; mean over {mlp['n_seeds']} seeds, interval over seeds and images; "
            f"the original report: {ORIGINAL['test']} for `fine`, one run",
        ),
        (
            f"test accuracy of the final model, `{final['config']}`",
            f"**{final['test_accuracy']:.4f}** {_interval(final['test_accuracy_ci95'])}",
            f"one model, with a fresh seed, Wilson interval; {all_images['n']:,} images, never used for training or "
            "selection",
        ),
        (
            "the same, without near-duplicates",
            f"{distinct['accuracy']:.4f}",
            f"{distinct['n']:,} images that resemble no training or validation image",
        ),
    ]
    return (
        f"{_table(('claim', 'value', 'how'), rows)}\n"
        f"Ranges are 95 % intervals. Computed without a GPU, with {' and '.join(_versions(root))}.\n"
    )


def _interval(bounds: Sequence[float]) -> str:
    low, high = bounds
    return f"({low:.4f} to {high:.4f})"


def _versions(root: Path) -> list[str]:
    """The locked versions of the packages that the numbers depend on."""
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", (root / "requirements.txt").read_text(), re.MULTILINE))
    return [f"{name} {locked[name]}" for name in ("torch", "torchvision")]


def _steps(root: Path) -> str:
    """The columns of ``_all_steps`` that a reader looks for first."""
    header, *rows = [(*row[:3], row[-1]) for row in _step_rows(root)]
    return _table(header, rows)


def _all_steps(root: Path) -> str:
    header, *rows = _step_rows(root)
    return _table(header, rows)


def _step_rows(root: Path) -> Iterator[tuple[str, ...]]:
    yield (
        "step",
        "configuration",
        "test accuracy",
        "without near-duplicates",
        "validation",
        "trainable parameters",
    )
    yield "the original report, one run", "`fine`", f"{ORIGINAL['test']}", "", f"{ORIGINAL['val']}", "1,643,234"
    for family, step in STEPS.items():
        paths = [root / folder / f"metrics/evaluate/{family}.json" for folder in ("", EXTENDED)]
        # The selected one of each pipeline; often the same.
        selected = {e["config"]: e for e in [_read(path) for path in paths if path.exists()]}
        for name, e in selected.items():
            all_images, distinct = e["subsets"]
            yield (
                step,
                f"`{name}`",
                f"**{all_images['seeds_mean']:.4f}** {_interval(all_images['seeds_ci95'])}",
                f"{distinct['seeds_mean']:.4f}",
                f"{e['val_accuracy']:.4f}",
                _trainable(e["n_parameters"], name, root),
            )


def _trainable(n: int, name: str, root: Path) -> str:
    """The number of trainable parameters of a configuration, and the frozen backbone below them, if it has one."""
    all_params = params.load(root / "params.yaml")
    configuration = (all_params.configs | all_params.extended_configs)[name]
    if not isinstance(configuration, params.Transfer) or configuration.trainable_blocks == "all":
        return f"{n:,}"
    backbone = configuration.backbone or all_params.features.backbone
    frozen = (
        f"the first blocks of `{backbone}` are frozen" if configuration.trainable_blocks else f"`{backbone}` is frozen"
    )
    return f"{n:,}; {frozen}"


def _ranking(root: Path) -> str:
    prepare = _read(root / "metrics/prepare.json")
    families, metrics = {}, {}
    for folder in (Path(), Path(EXTENDED)):
        for row in _rows(root / folder / "metrics/ranking.csv"):
            families[row["name"]] = row["family"]
            metrics[row["name"]] = _read(root / folder / f"metrics/train/{row['name']}.json")
    header = ("rank", "configuration", "family", "validation accuracy", "validation loss", "training accuracy", "gap")
    rows = [
        (
            str(ranked.rank),
            f"`{ranked.name}`",
            families[ranked.name],
            f"{m['val_accuracy']:.4f} ± {m['val_accuracy_se']:.4f}",
            f"{m['val_loss']:.3f} ± {m['val_loss_se']:.3f}",
            f"{m['train_accuracy']:.4f}",
            f"{m['gap']:.4f}",
        )
        for ranked in selection.rank(metrics)
        for m in [ranked.metrics]
    ]
    return (
        f"{_table(header, rows)}\n"
        f"Trained on {prepare['n_train']:,} images and ranked on {prepare['n_val']:,} others: mean over "
        f"{next(iter(metrics.values()))['n_seeds']} seeds, ± one standard error that counts both seeds and images.\n"
    )


def _ablation(root: Path) -> str:
    base, *changed = [
        (
            f"`{row['name']}`",
            f"{float(row['val_accuracy']):.4f} ± {float(row['val_accuracy_se']):.4f}",
            f"{float(row['difference']):+.4f} ± {float(row['difference_se']):.4f}",
        )
        for row in _rows(root / EXTENDED / "metrics/ablation.csv")
    ]
    return _table(("configuration", "validation accuracy", "drop"), [(*base[:2], ""), *changed])


def _budget(root: Path) -> str:
    """The trainings of every configuration, of the final model and of the sweep."""
    all_params, prepare = params.load(root / "params.yaml"), _read(root / "metrics/prepare.json")
    n_train, default = prepare["n_train"], all_params.train.epochs
    trained = []
    for folder, configs in (("", all_params.configs), (EXTENDED, all_params.extended_configs)):
        for name, configuration in configs.items():
            m = _read(root / folder / f"metrics/train/{name}.json")
            # A run that stops early has fewer epochs.
            n_epochs = len(_rows(root / folder / f"metrics/curves/{name}.csv"))
            parameters = _trainable(m["n_parameters"], name, root)
            trained.append((f"`{name}`", m["n_seeds"], configuration.epochs or default, n_epochs * n_train, parameters))
    refit, curve = _read(root / "metrics/refit.json"), _rows(root / "metrics/refit_curve.csv")
    final = next(row for row in trained if row[0] == f"`{refit['config']}`")
    n_images = len(curve) * sum(prepare[f"n_{split}"] for split in refit["trained_on"])
    trained.append((f"the final model, {final[0]}", 1, final[2], n_images, final[4]))
    base, n_trials = all_params.sweep.base, len(_rows(root / "metrics/sweep.csv")) * len(all_params.sweep.seeds)
    started = next(row for row in trained if row[0] == f"`{base}`")
    trained.append(("the trials of the sweep", n_trials, started[2], n_trials * started[2] * n_train, started[4]))
    rows = [(name, str(n), str(epochs), f"{images:,}", parameters) for name, n, epochs, images, parameters in trained]
    return (
        f"{_table(('configuration', 'trainings', 'epochs', 'images seen', 'trainable parameters'), rows)}\n"
        f"{sum(row[1] for row in trained)} trainings on {n_train:,} images, one per seed. Images are counted once per "
        "epoch and training.\n"
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def commands(block: str) -> list[str]:
    """The typed lines of a console block."""
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def transcript(block: str, clone: Path, environment: dict[str, str]) -> str:
    """Run the commands of a console block in ``clone``, and return the block with their output."""
    lines = []
    for command in commands(block):
        lines.append(f"$ {command}")
        done = subprocess.run(  # noqa: S602 (the documents' own commands)
            command, shell=True, cwd=clone, env=environment, check=True, text=True, capture_output=True
        )
        lines += shortened(done.stdout.replace(str(clone), "cifar2").rstrip().splitlines())
    return "\n".join(line.rstrip() for line in lines) + "\n"


def shortened(lines: list[str]) -> list[str]:
    """Fold the epochs of a training log, and successive unchanged stages, into a line; drop DVC's lock."""
    text = "".join(f"{line}\n" for line in lines)
    text = re.sub(r"(?m)^Updating lock file 'dvc.lock'\n\n?", "", text)
    text = re.sub(r"(?m)^(.*seed \d+ epoch \d+:.*\n)+", "... training log\n", text)
    return re.sub(r"(?m)^(Stage '.+' didn't change, skipping\n){2,}", _counted, text).splitlines()


def _counted(stages: re.Match[str]) -> str:
    return f"... {len(stages[0].splitlines())} stages didn't change, skipping\n"


def _run(text: str, root: Path) -> str:
    """``text`` with the transcripts of its commands in a scratch clone of ``root``."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "cifar2")
        # A terminal of 120 characters.
        environment = os.environ | {"COLUMNS": "120", "PYTHONHASHSEED": "0"}
        subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
        # DVC's cache without its record of runs, so that the commands run their stages.
        shutil.copytree(root / ".dvc/cache/files", clone / ".dvc/cache/files")
        subprocess.run(["dvc", "checkout", "--quiet"], cwd=clone, env=environment, check=True)
        return CONSOLE.sub(lambda m: m[1] + transcript(m[2], clone, environment) + m[3], text)


def fill(root: Path) -> None:
    """Update the tables and the code of every document."""
    for path in documents(root):
        path.write_text(filled(path.read_text(), root))


def main() -> None:
    root = Path.cwd()
    fill(root)
    for path in documents(root):
        text = path.read_text()
        if CONSOLE.search(text):
            path.write_text(_run(text, root))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    errors.run(main)
