"""Update the tables, code and transcripts in README.md and docs/: ``make readme``.

* Between ``<!-- TABLE -->`` and ``<!-- end -->``: a table made from ``metrics/``, with the times that ``make bench``
  measured, if it ran here.
* After ``<!-- code FILE:NAME -->``: the body of that function, from the source.
* After ``<!-- run -->``: commands with their output.  They run in a scratch clone of the last commit, one clone for
  each document, one block after the other.
"""

import argparse
import ast
import os
import re
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cifar2 import errors, files, params
from cifar2.errors import UserError
from cifar2.evaluation import selection

# The folder of the extended pipeline.
EXTENDED = "extended"

TABLES = re.compile(r"(<!-- (claims|steps|all steps|ranking|ablation) -->\n).*?(<!-- end -->)", re.DOTALL)
CODE = re.compile(r"(<!-- code (\S+):(\S+) -->\n```python\n).*?(```\n)", re.DOTALL)
CONSOLE = re.compile(r"(<!-- run -->\n```console\n)(.*?)(```\n)", re.DOTALL)

# The accuracies of `fine` in the original report: one run, without an interval.
ORIGINAL = {"val": 0.85, "test": 0.848}
# The measured times are named after the configurations, and this.
EPOCH = "an epoch"
STEPS = {
    "mlp": "the original network, selected from its five configurations",
    "mlp_augmented": "the same network, augmented and regularised",
    "cnn": "a CNN trained from scratch",
    "transfer": "a linear classifier on ImageNet features",
}


def documents(root: Path) -> list[Path]:
    """README.md and the pages in docs/."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def filled(text: str, root: Path, times: Mapping[str, str]) -> str:
    """``text`` with its tables and code from the files in ``root``, and from ``times`` (see ``timings``)."""
    made = {"claims": _claims, "steps": _steps, "all steps": _all_steps, "ranking": _ranking, "ablation": _ablation}
    text = TABLES.sub(lambda m: m[1] + made[m[2]](root, times) + m[3], text)
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


def _claims(root: Path, times: Mapping[str, str]) -> str:
    verify = files.read_json(root / "metrics/verify.json")
    final, mlp = (files.read_json(root / f"metrics/evaluate/{name}.json") for name in ("final", "mlp"))
    all_images, distinct = final["subsets"]
    # The locked versions of the packages that the numbers depend on.
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", (root / "requirements.txt").read_text(), re.MULTILINE))
    versions = ", ".join(f"{name} {locked[name]}" for name in ("torch", "torchvision", "dvc"))
    return f"""\
| claim | value | how |
| --- | --- | --- |
| hand-written backpropagation against autograd \
| largest relative error {verify["backprop_vs_autograd_max_rel_error"]:.1e} \
| in float64; {verify["n_checks"]} checks in these four rows |
| the same against central differences \
| largest relative error {verify["backprop_vs_finite_difference_max_rel_error"]:.1e} | in float64 |
| hand-written SGD against `torch.optim.SGD` \
| difference {verify["sgd_vs_torch_max_abs_diff"]:g} | after every step, in float32 and float64 |
| in-place epoch against backpropagation and SGD \
| largest relative difference {verify["inplace_vs_backprop_and_sgd_max_rel_diff"]:.1e} | after two epochs, in float64 |
| speed of the in-place epoch, the default | {times.get(EPOCH, "not timed")} | `make bench`, interleaved runs |
| test accuracy of the hand-written network, `{mlp["config"]}` \
| **{mlp["subsets"][0]["seeds_mean"]:.4f}** {_interval(mlp["subsets"][0]["seeds_ci95"])} \
| mean over {mlp["n_seeds"]} seeds; the original report: {ORIGINAL["test"]} for `fine`, one run |
| test accuracy of the final model, `{final["config"]}` \
| **{final["test_accuracy"]:.4f}** {_interval(final["test_accuracy_ci95"])} \
| one model, with a fresh seed; {all_images["n"]:,} images, never used for training or selection |
| the same, without near-duplicates | {distinct["accuracy"]:.4f} \
| {distinct["n"]:,} images that resemble no training or validation image |

Ranges are 95 % intervals, except that of the speed. Measured on two cores of an AMD EPYC without a GPU, with Linux, \
Python 3.11, {versions}.
"""


def _interval(bounds: Sequence[float]) -> str:
    low, high = bounds
    return f"({low:.4f} to {high:.4f})"


def _table(*rows: Sequence[str]) -> str:
    """``rows`` as a table, the first as its header."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def _steps(root: Path, times: Mapping[str, str]) -> str:
    """The columns of ``_all_steps`` that a reader looks for first."""
    return _table(*((*row[:3], *row[-2:]) for row in _step_rows(root, times)))


def _all_steps(root: Path, times: Mapping[str, str]) -> str:
    return _table(*_step_rows(root, times))


def _step_rows(root: Path, times: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    accuracies = "test accuracy", "without near-duplicates", "validation"
    yield "step", "configuration", *accuracies, "trainable parameters", "training"
    yield "the original report, one run", "`fine`", f"{ORIGINAL['test']}", "", f"{ORIGINAL['val']}", "1,643,234", ""
    for family, step in STEPS.items():
        paths = [root / folder / f"metrics/evaluate/{family}.json" for folder in ("", EXTENDED)]
        # The selected one of each pipeline; often the same.
        selected = {e["config"]: e for e in [files.read_json(path) for path in paths if path.exists()]}
        for name, e in selected.items():
            all_images, distinct = e["subsets"]
            yield (
                step,
                f"`{name}`",
                f"**{all_images['seeds_mean']:.4f}** {_interval(all_images['seeds_ci95'])}",
                f"{distinct['seeds_mean']:.4f}",
                f"{e['val_accuracy']:.4f}",
                f"{e['n_parameters']:,}",
                times.get(name, ""),
            )


def _ranking(root: Path, _: Mapping[str, str]) -> str:
    prepare = files.read_json(root / "metrics/prepare.json")
    families, metrics = {}, {}
    for folder in (root, root / EXTENDED):
        for row in files.read_csv(folder / "metrics/ranking.csv", ("name", "family")):
            families[row["name"]] = row["family"]
            metrics[row["name"]] = files.read_json(folder / f"metrics/train/{row['name']}.json")
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
        f"{_table(header, *rows)}\n"
        f"Trained on {prepare['n_train']:,} images and ranked on {prepare['n_val']:,} others: mean over "
        f"{next(iter(metrics.values()))['n_seeds']} seeds, ± one standard error that counts both seeds and images.\n"
    )


def _ablation(root: Path, _: Mapping[str, str]) -> str:
    base, *changed = [
        (
            f"`{row['name']}`",
            f"{row['val_accuracy']:.4f} ± {row['val_accuracy_se']:.4f}",
            f"{row['difference']:+.4f} ± {row['difference_se']:.4f}",
        )
        for row in files.read_csv(root / EXTENDED / "metrics/ablation.csv", ("name",))
    ]
    return _table(("configuration", "validation accuracy", "drop"), (*base[:2], ""), *changed)


def timings(text: str) -> dict[str, str]:
    """The times that ``text`` already states: training of a configuration, and the speed of an epoch."""
    times = dict(re.findall(r"^\|[^|]+\| `(\w+)` \|.*\| (\d+ s[^|]*) \|$", text, re.MULTILINE))
    epoch = re.search(r"\| (\d\.\d\d times as fast [^|]*) \|", text)
    return times | ({EPOCH: epoch[1]} if epoch else {})


def _benchmarked(results: Path) -> dict[str, str]:
    """The same times from `make bench` on this machine; none if it did not run."""
    rows = {row["name"]: row for row in files.read_json(results)["rows"]} if results.exists() else {}
    on_features = [name for name, c in params.load().configs.items() if c.input == "features"]
    times = {}
    for name, row in rows.items():
        if row["module"] == "families":
            configuration = name.removeprefix("train_")
            once = f" + {rows['features']['ours']:.0f} s once for features" * (configuration in on_features)
            times[configuration] = f"{row['ours']:.0f} s{once}"
    if "epoch_vs_best_torch" in rows:
        row = rows["epoch_vs_best_torch"]
        low, high = row["spread"]
        times[EPOCH] = (
            f"{row['ratio']:.2f} times as fast as the best plain PyTorch (quartiles {low:.2f} to {high:.2f} over "
            f"{row['rounds']} rounds)"
        )
    return times


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


def main() -> None:
    root = Path.cwd()
    texts = {path: path.read_text() for path in documents(root)}
    times = timings("\n".join(texts.values())) | _benchmarked(root / "benchmarks/results.json")
    filled_texts = {path: filled(text, root, times) for path, text in texts.items()}
    for path, text in filled_texts.items():
        path.write_text(text)
    for path, text in filled_texts.items():
        if CONSOLE.search(text):
            path.write_text(_run(text, root))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    errors.run(main)
