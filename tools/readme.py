"""Update the tables, code and transcripts in README.md and docs/: ``make readme``.

* Between ``<!-- TABLE -->`` and ``<!-- end -->``: a table made from ``metrics/`` and ``params.yaml``.
* After ``<!-- code FILE:NAME -->``: the body of that function, or that assignment, from the source.
* Between ``<!-- cell FILE:NAME -->`` and ``<!-- end -->``: that cell of a script, ``# %% NAME``, with its output.
* After ``<!-- run -->``: commands with their output.  They run in a scratch clone of the last commit, one clone for
  each document, one block after the other.
"""

import argparse
import ast
import io
import os
import re
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from cifar2 import errors, files, params
from cifar2.errors import UserError
from cifar2.report import original

# The folder of the extended pipeline.
EXTENDED = "extended"

BLOCKS = (
    "claims|steps|all steps|original|near-duplicates|ranking|replication|ablation|budget|speed|sizes|intel|digits|"
    "ten classes"
)
TABLES = re.compile(rf"(<!-- ({BLOCKS}) -->\n).*?(<!-- end -->)", re.DOTALL)
CODE = re.compile(r"(<!-- code (\S+):(\S+) -->\n```python\n).*?(```\n)", re.DOTALL)
CELL = re.compile(r"(<!-- cell (\S+):(\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
CONSOLE = re.compile(r"(<!-- run -->\n```console\n)(.*?)(```\n)", re.DOTALL)

STEPS = {
    "fine": "its choice here",
    "mlp": "the original network, selected from its five configurations",
    "mlp_augmented": "the same network, augmented and regularised",
    "cnn": "a CNN trained from scratch",
    "transfer": "a network pretrained on ImageNet",
}


def documents(root: Path) -> list[Path]:
    """README.md and the pages in docs/."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def filled(text: str, root: Path) -> str:
    """``text`` with its tables, code and cells from the files in ``root``."""
    made = {
        "claims": _claims,
        "steps": _steps,
        "all steps": _all_steps,
        "original": _original,
        "ranking": _ranking,
        "replication": _replication,
        "ablation": _ablation,
        "budget": _budget,
        "speed": _speed,
        "sizes": _sizes,
        "intel": _intel,
        "digits": lambda root: _families(root / "examples/digits"),
        "ten classes": lambda root: _families(root / "examples/ten_classes"),
        "near-duplicates": _near_duplicates,
    }
    text = TABLES.sub(lambda m: m[1] + made[m[2]](root) + m[3], text)
    text = CODE.sub(lambda m: m[1] + source(root / m[2], m[3]) + m[4], text)
    cells = {script: run_cells(root / script) for script in {m[2] for m in CELL.finditer(text)}}
    return CELL.sub(lambda m: m[1] + _cell(cells[m[2]], m[2], m[3]) + m[4], text)


def source(path: Path, name: str) -> str:
    """The body of function ``name`` (or ``Class.method``) in ``path``, without its docstring; or an assignment.

    Raises:
        UserError: there is no such function or variable.
    """
    text = path.read_text()
    node: Any = ast.parse(text)
    for part in name.split("."):
        node = next((child for child in node.body if part in _names(child)), None)
        if node is None:
            raise UserError(f"{path} has no {name}; README.md or a file in docs/ shows it")
    first = node if isinstance(node, ast.Assign) else node.body[1 if ast.get_docstring(node) else 0]
    return textwrap.dedent("\n".join(text.splitlines()[first.lineno - 1 : node.end_lineno])) + "\n"


def _names(node: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    return [ast.unparse(n) for n in node.targets] if isinstance(node, ast.Assign) else [getattr(node, "name", "")]


def run_cells(path: Path) -> dict[str, tuple[str, str]]:
    """Run the cells of a script in order, in one namespace, and return the code and the output of each by its name."""
    parts = re.split(r"(?m)^# %% (.+)\n", path.read_text())[1:]
    namespace: dict[str, Any] = {}
    cells = {}
    for name, code in zip(parts[::2], parts[1::2], strict=True):
        with redirect_stdout(io.StringIO()) as output:
            exec(code, namespace)  # noqa: S102 (the project's own script)
        cells[name] = code.strip() + "\n", output.getvalue()
    return cells


def _cell(cells: dict[str, tuple[str, str]], script: str, name: str) -> str:
    """A cell as a block of code, and its output, if any, as a block of text."""
    if name not in cells:
        raise UserError(f"{script} has no cell {name}; README.md or a file in docs/ shows it")
    code, output = cells[name]
    return f"```python\n{code}```\n" + (f"\n```text\n{output}```\n" if output else "")


def _claims(root: Path) -> str:
    verify = files.read_json(root / "metrics/verify.json")
    final, mlp = (files.read_json(root / f"metrics/evaluate/{name}.json") for name in ("final", "mlp"))
    all_images, distinct = final["subsets"]
    # The locked versions of the packages that the numbers depend on.
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", (root / "requirements.txt").read_text(), re.MULTILINE))
    versions = " and ".join(f"{name} {locked[name]}" for name in ("torch", "torchvision"))
    return f"""\
| claim | value | how |
| --- | --- | --- |
| hand-written backpropagation against autograd \
| largest relative error {verify["backprop_vs_autograd_max_rel_error"]:.1e} \
| in float64; {verify["n_checks"]} checks in these four rows |
| the same against central differences \
| largest relative error {verify["backprop_vs_finite_difference_max_rel_error"]:.1e} | in float64 |
| hand-written SGD against `torch.optim.SGD` \
| difference {verify["sgd_vs_torch_max_abs_diff"]:g} | `sgd.py`; after every step, in float32 and float64 |
| in-place epoch, which trains the MLPs, against backpropagation and SGD \
| largest relative difference {verify["inplace_vs_backprop_and_sgd_max_rel_diff"]:.1e} | after two epochs, in float64 |
| test accuracy of the hand-written network, `{mlp["config"]}` \
| **{mlp["test_accuracy"]:.4f}** {_interval(mlp["test_accuracy_ci95"])} \
| selected by the rule; mean over {mlp["n_seeds"]} seeds, t interval over seeds and images; the original report: \
{original.TEST_ACCURACY:.3f} {_interval(original.interval(), 3)} for `{original.CHOSEN}`, one run, Wilson interval |
| test accuracy of the final model, `{final["config"]}` \
| **{final["test_accuracy"]:.4f}** {_interval(final["test_accuracy_ci95"])} \
| one model, with a fresh seed, Wilson interval; {all_images["n"]:,} images, never used for training or selection |
| the same, without near-duplicates | {distinct["accuracy"]["mean"]:.4f} {_interval(distinct["accuracy"]["ci95"])} \
| {distinct["n"]:,} images that resemble no training or validation image |

Ranges are 95 % intervals. Computed without a GPU, with {versions}.
"""


def _interval(bounds: Sequence[float], digits: int = 4) -> str:
    low, high = bounds
    return f"({low:.{digits}f} to {high:.{digits}f})"


def _table(*rows: Sequence[str]) -> str:
    """``rows`` as a table, the first as its header."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def _steps(root: Path) -> str:
    """The columns of ``_all_steps`` that a reader looks for first."""
    return _table(*((*row[:3], row[-1]) for row in _step_rows(root)))


def _all_steps(root: Path) -> str:
    return _table(*_step_rows(root))


def _step_rows(root: Path) -> Iterator[tuple[str, ...]]:
    accuracies = "test accuracy", "without near-duplicates", "validation"
    yield "step", "configuration", *accuracies, "trainable parameters"
    run = f"{original.TEST_ACCURACY:.3f} {_interval(original.interval(), 3)}"
    yield "the original report, one run", f"`{original.CHOSEN}`", run, "", f"{original.VAL_ACCURACY}", "1,643,234"
    for name, step in STEPS.items():
        paths = [root / folder / f"metrics/evaluate/{name}.json" for folder in ("", EXTENDED)]
        for e in [files.read_json(path) for path in paths if path.exists()]:
            yield (
                step,
                f"`{e['config']}`",
                f"**{e['test_accuracy']:.4f}** {_interval(e['test_accuracy_ci95'])}",
                f"{e['subsets'][1]['accuracy']['mean']:.4f}",
                f"{e['val_accuracy']:.4f}",
                _trainable(e["n_parameters"], e["config"], root),
            )


def _families(root: Path) -> str:
    """The results of an example: those of the selected configuration of each family, and of the final model."""
    header = ("family", "configuration", "test accuracy", "trainable parameters")
    paths = {name: root / f"metrics/evaluate/{name}.json" for name in (*STEPS, "final")}
    found = {name: files.read_json(path) for name, path in paths.items() if path.exists() and name != original.CHOSEN}
    rows = [
        (
            "the final model" if name == "final" else f"`{name}`",
            f"`{e['config']}`",
            f"**{e['test_accuracy']:.4f}** {_interval(e['test_accuracy_ci95'])}",
            f"{e['n_parameters']:,}",
        )
        for name, e in found.items()
    ]
    return (
        f"{_table(header, *rows)}\n"
        f"Measured on {found['final']['subsets'][0]['n']:,} test images. Test accuracy is the mean over "
        f"{found['mlp']['n_seeds']} seeds, with a 95 % t interval over seeds and images; that of the final model, "
        "which is one, has Wilson's interval.\n"
    )


def _original(root: Path) -> str:
    """The original report's question f: the configurations, their parameters and results."""
    configs = params.load(root / "params.yaml").configs
    header = ("configuration", "learning rate", "momentum", "weight decay", "validation accuracy", "gap", "selected")
    ranking = files.read_csv(root / "metrics/ranking.csv", ("name", "family"))
    rows = [
        (
            f"`{row['name']}`",
            *(f"{value:g}" for value in (c.lr, c.momentum, c.weight_decay)),
            f"{row['val_accuracy']:.4f} ± {row['val_accuracy_se']:.4f}",
            f"{row['gap']:.4f} ± {row['gap_se']:.4f}",
            f"{100 * row['fraction_of_family']:.0f} %",
        )
        for row in ranking
        if row["family"] == "mlp"
        for c in [configs[row["name"]]]
    ]
    chosen, mlp, final = (
        files.read_json(root / f"metrics/evaluate/{name}.json") for name in (original.CHOSEN, "mlp", "final_mlp")
    )
    low, high = chosen["one_new_run_pi95"]
    deviation = chosen["subsets"][0]["accuracy"]["std"]
    return (
        f"{_table(header, *rows)}\n"
        f"`{chosen['config']}`, the original report's choice, reaches {chosen['test_accuracy']:.4f} on the test images "
        f"(mean over {chosen['n_seeds']} seeds, standard deviation {deviation:.4f}, 95 % t interval "
        f"{_interval(chosen['test_accuracy_ci95'])}). One new run would reach {low:.4f} to {high:.4f} (95 % prediction "
        f"interval); the original report's run has {original.TEST_ACCURACY:.3f}. "
        f"The rule selects `{mlp['config']}`. "
        f"Trained once more with a fresh seed, it reaches {final['test_accuracy']:.4f} "
        f"{_interval(final['test_accuracy_ci95'])} (95 % Wilson interval).\n"
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


def _near_duplicates(root: Path) -> str:
    sizes, n = (files.read_json(root / f"metrics/{name}.json") for name in ("prepare", "near_duplicates"))
    return (
        f"Of the {sizes['n_test']:,} test images, {n['n_test']} have a near-duplicate that is not a test image: "
        f"{n['n_test_of_train']} in the training set, {n['n_test_of_val']} in the validation set. "
        f"{n['n_test_of_test']} have one within the test set. Of the {sizes['n_val']:,} validation images, "
        f"{n['n_val_of_train']} have one in the training set, so validation accuracies may be slightly too high.\n"
    )


def _ranking(root: Path) -> str:
    prepare, select = (files.read_json(root / f"metrics/{name}.json") for name in ("prepare", "select"))
    accuracies = "validation accuracy", "validation loss", "training accuracy"
    header = ("rank", "configuration", "family", *accuracies, "gap", "selected from all", "from its family")
    rows = [
        (
            f"{row['rank']:.0f}",
            f"`{row['name']}`",
            row["family"],
            f"{row['val_accuracy']:.4f} ± {row['val_accuracy_se']:.4f}",
            f"{row['val_loss']:.3f} ± {row['val_loss_se']:.3f}",
            f"{row['train_accuracy']:.4f}",
            f"{row['gap']:.4f} ± {row['gap_se']:.4f}",
            f"{100 * row['fraction']:.0f} %",
            f"{100 * row['fraction_of_family']:.0f} %",
        )
        for row in files.read_csv(root / "metrics/ranking.csv", ("name", "family"))
    ]
    n_seeds = len(params.load(root / "params.yaml").train.seeds)
    return (
        f"{_table(header, *rows)}\n"
        f"Trained on {prepare['n_train']:,} images and ranked on {prepare['n_val']:,} others: mean over {n_seeds} "
        "seeds, ± one standard error over seeds and images. The training accuracy describes these runs; the gap "
        "has its uncertainty. The last columns are how often the rule selects a "
        f"configuration on {select['resamples']:,} resamples of images and seeds.\n"
    )


def _replication(root: Path) -> str:
    rows = files.read_csv(root / EXTENDED / "metrics/replication.csv", ("name",))
    n_drawn = len(params.load(root / "params.yaml").train.seeds)
    header = ("configuration", "validation accuracy", "standard deviation", "one new run", "selected")
    of_configs = [
        (
            f"`{row['name']}`",
            f"{row['val_accuracy']:.4f}",
            f"{row['val_accuracy_std']:.4f}",
            f"{row['one_new_run_low']:.4f} to {row['one_new_run_high']:.4f}",
            f"{100 * row['fraction']:.0f} %",
        )
        for row in rows
    ]
    return (
        f"{_table(header, *of_configs)}\n"
        f"Mean and standard deviation over {rows[0]['n_seeds']:.0f} seeds on the same validation images, and the 95 % "
        f"prediction interval of one new run. Selected: how often the rule selects the configuration when {n_drawn} "
        "seeds are drawn, and the images are resampled.\n"
    )


def _ablation(root: Path) -> str:
    rows = files.read_csv(root / EXTENDED / "metrics/ablation.csv", ("base", "name"))
    header = ("base", "variant", "validation accuracy", "change", "95 % interval")
    variants = [row for row in rows if row["name"] != row["base"]]
    bases = [
        (f"`{row['base']}`", "", f"{row['val_accuracy']:.4f} ± {row['val_accuracy_se']:.4f}", "", "")
        if row["name"] == row["base"]
        else (
            "",
            f"`{row['name']}`",
            f"{row['val_accuracy']:.4f} ± {row['val_accuracy_se']:.4f}",
            f"{row['difference']:+.4f}",
            f"{row['low']:+.4f} to {row['high']:+.4f}" + ", shown" * (row["low"] > 0 or row["high"] < 0),
        )
        for row in rows
    ]
    return (
        f"{_table(header, *bases)}\n"
        f"Accuracies ± one standard error. The {len(variants)} intervals hold together with 95 % (t intervals over "
        "seeds and images with Bonferroni's correction); a change is shown if its interval leaves out 0.\n"
    )


def _budget(root: Path) -> str:
    """The trainings of every configuration, of the final model and of the sweep."""
    all_params, prepare = params.load(root / "params.yaml"), files.read_json(root / "metrics/prepare.json")
    n_train, default = prepare["n_train"], all_params.train.epochs
    trained = []
    for folder, configs in (("", all_params.configs), (EXTENDED, all_params.extended_configs)):
        for name, configuration in configs.items():
            m = files.read_json(root / folder / f"metrics/train/{name}.json")
            # A run that stops early has fewer epochs.
            n_epochs = len(_rows(root / folder / f"metrics/curves/{name}.csv"))
            parameters = _trainable(m["n_parameters"], name, root)
            trained.append((f"`{name}`", m["n_seeds"], configuration.epochs or default, n_epochs * n_train, parameters))
    refit, curve = files.read_json(root / "metrics/refit/final.json"), _rows(root / "metrics/refit/final_curve.csv")
    final = next(row for row in trained if row[0] == f"`{refit['config']}`")
    n_images = len(curve) * sum(prepare[f"n_{split}"] for split in refit["trained_on"])
    trained.append((f"the final model, {final[0]}", 1, final[2], n_images, final[4]))
    base, n_trials = all_params.sweep.base, len(_rows(root / "metrics/sweep.csv")) * len(all_params.sweep.seeds)
    started = next(row for row in trained if row[0] == f"`{base}`")
    trained.append(("the trials of the sweep", n_trials, started[2], n_trials * started[2] * n_train, started[4]))
    rows = [(name, str(n), str(epochs), f"{images:,}", parameters) for name, n, epochs, images, parameters in trained]
    return (
        f"{_table(('configuration', 'trainings', 'epochs', 'images seen', 'trainable parameters'), *rows)}\n"
        f"{sum(row[1] for row in trained)} trainings on {n_train:,} images, one per seed. Images are counted once per "
        "epoch and training.\n"
    )


def _speed(root: Path) -> str:
    """The rows of the benchmarks that have a target."""
    record = files.read_json(root / "benchmarks/record.json")
    machine, rows = record["machine"], [row for row in record["rows"] if row["target"]]
    found = [
        (
            row["what"],
            *(f"{number:{'.3g' if number < 1000 else '.0f'}} {row['unit']}" for number in (row["ours"], row["rival"])),
            f"{row['ratio']:.3f}" + ("" if row["spread"] is None else " ({:.3f} to {:.3f})".format(*row["spread"])),
            f"{row['target'].replace('<=', 'at most').replace('>=', 'at least')}" + ", missed" * (not row["met"]),
            str(len(row["rounds"]["ours"])),
        )
        for row in rows
    ]
    dates = sorted({row["date"] for row in rows})
    computed = next(row["computed"] for row in rows if "computed" in row)
    minutes = ", ".join(
        f"{seconds / 60:.0f} min on {cores.removesuffix(' cores')}" for cores, seconds in computed.items()
    )
    return (
        f"{_table(('what', 'time or rate', 'of the other', 'ratio (quartiles)', 'target', 'rounds'), *found)}\n"
        f"Medians of the rounds, in which the two take turns; {machine['processor']} with {machine['cores']} cores, "
        f"{' and '.join(dict.fromkeys((dates[0], dates[-1])))}.\n\n"
        f"Time of the default run by number of cores, computed from the times of its stages: {minutes}.\n"
    )


def _intel(root: Path) -> str:
    """The test accuracies of the pipeline on an Intel processor, beside the committed ones."""
    record = files.read_json(root / "benchmarks/intel.json")
    header = ("model", "configuration", "test accuracy on AMD, committed", "on Intel", "difference")
    rows = []
    for name, there in record["evaluate"].items():
        here = files.read_json(root / f"metrics/evaluate/{name}.json")
        a, b = here["test_accuracy"], there["test_accuracy"]
        interval = _interval(here["test_accuracy_ci95"])
        rows.append((f"`{name}`", f"`{there['config']}`", f"{a:.4f} {interval}", f"{b:.4f}", f"{b - a:+.4f}"))
    return f"{_table(header, *rows)}\nOnce each: {record['processor']}, {record['date']}.\n"


def _sizes(root: Path) -> str:
    """The sizes of the environments, in a sentence."""
    rows = files.read_json(root / "benchmarks/record.json")["rows"]
    *sizes, last = (f"{row['ours']:.1f} GB for {row['needed_by']}" for row in rows if "needed_by" in row)
    return f"On Linux, the packages take {', '.join(sizes)} and {last}.\n"


def _rows(path: Path) -> list[dict[str, Any]]:
    return files.read_csv(path, ("configuration",))


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
    """Update the tables, the code and the cells of every document."""
    for path in documents(root):
        path.write_text(filled(path.read_text(), root))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", action="store_true", help="leave the transcripts as they are")
    arguments = parser.parse_args()
    root = Path.cwd()
    fill(root)
    if arguments.tables:
        return
    for path in documents(root):
        text = path.read_text()
        if CONSOLE.search(text):
            path.write_text(_run(text, root))


if __name__ == "__main__":
    errors.run(main)
