"""What README.md and the pages in docs/ quote in their sentences, and the Python code that they give to users."""

import csv
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.conftest import ROOT
from tools import readme

# Metrics in a sentence are of these files. Curves and predictions are left out: among thousands of values, any number
# would be found.
METRICS = [
    path
    for folder in ("metrics", "extended/metrics", "examples/digits/metrics", "examples/ten_classes/metrics")
    for pattern in ("**/*.json", "ranking.csv", "ablation.csv", "replication.csv", "sweep.csv")
    for path in (ROOT / folder).glob(pattern)
]

# Generated or verified by tests of tools.readme, typed by users, or no text.
NO_SENTENCE = re.compile(r"<!-- .*?-->|```.*?```|`[^`]*`|\$[^$]*\$|\]\([^)]*\)", re.DOTALL)
FIGURE = re.compile(
    r"(?<![\w.,])-?(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?(?=[\s\u00a0]?%)|\d+\.\d+)(?![\w]|[.,]\d)([\s\u00a0]?%)?"
)

# Figures that are no results, with the reason.
OTHER = {
    "95 %": "the level of the intervals",
    "3.11": "Python's version",
    "3.12": "another version of Python",
    "3.13": "another version of Python",
    "3.14": "another version of Python",
    "25.1": "pip's version",
    "3.67": "DVC's version",
    "2.0": "the version of a licence",
    "5.3": "a section of a book",
    "50,000": "CIFAR-10's training images",
    "10,000": "CIFAR-10's test images",
    "9,000": "training images with the other order of split and choice of classes: nine tenths of 10,000",
    "1,000": "validation images with that order",
    "0.54 %": "Northcutt, Athalye and Mueller (2021)",
    "3.3 %": "Barz and Denzler (2020)",
    "0.95": "the original report",
    "0.85": "the original report",
    "0.848": "the original report",
    "0.832": "Wilson's interval of the original report's 1,696 of 2,000",
    "0.863": "the same",
    "1,023": "the largest value of 10 bits",
    "4,095": "the largest value of 12 bits",
    "16,383": "the largest value of 14 bits",
    "65,535": "the largest value of 16 bits",
}


def numbers(value: object) -> Iterator[float]:
    """All numbers in a JSON or YAML document, or a row of a table."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, int | float | str) and re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", str(value)):
        yield float(value)


@pytest.fixture(scope="module")
def known() -> list[float]:
    """All numbers in the metrics and in params.yaml."""
    documents = [yaml.safe_load((ROOT / "params.yaml").read_text())]
    for path in METRICS:
        with path.open() as file:
            documents.append(json.load(file) if path.suffix == ".json" else list(csv.DictReader(file)))
    return list(numbers(documents))


def figures(text: str) -> list[str]:
    """The decimal numbers, percentages and counts with a thousands separator in the sentences of a document."""
    sentences = NO_SENTENCE.sub(" ", readme.TABLES.sub("", text))
    return [f"{m[1]} %" if m[2] else m[1] for m in FIGURE.finditer(sentences)]


def quoted(figure: str, values: list[float]) -> bool:
    """Whether one of the values is ``figure``, rounded to its digits."""
    number, percent = figure.removesuffix(" %").replace(",", ""), figure.endswith("%")
    digits = len(number.partition(".")[2])
    return any(f"{abs(100 * value if percent else value):.{digits}f}" == number for value in values)


@pytest.mark.parametrize("path", readme.documents(ROOT), ids=lambda path: path.name)
def test_every_figure_in_a_sentence_is_in_a_metrics_file(path: Path, known: list[float]) -> None:
    unknown = {figure for figure in figures(path.read_text()) if figure not in OTHER and not quoted(figure, known)}
    assert not unknown


def test_every_exception_is_still_quoted() -> None:
    shown = {figure for path in readme.documents(ROOT) for figure in figures(path.read_text())}
    assert OTHER.keys() <= shown


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It reaches 0.8378, which is 83.8 % of 2,000 images.", ["0.8378", "83.8 %", "2,000"]),
        ("Of 976 images, 5% are left.", ["5 %"]),
        ("An accuracy of\n0.5.", ["0.5"]),
        ("torch 2.15.0, `0.1`, $0.2$, [a](b-0.3), DVC 3", []),
        ("```\n0.4\n```", []),
        ("<!-- claims -->\n| 0.5 |\n<!-- end -->", []),
    ],
)
def test_figures_are_found_in_sentences_alone(text: str, found: list[str]) -> None:
    assert figures(text) == found


@pytest.mark.parametrize(
    ("figure", "value", "expected"),
    [
        ("0.84", 0.8378, True),
        ("0.838", 0.8378, True),
        ("0.837", 0.8378, False),
        ("84 %", 0.8378, True),
        ("83 %", 0.8378, False),
        ("9,024", 9024, True),
        ("9,025", 9024, False),
    ],
)
def test_a_figure_is_a_value_rounded_to_its_digits(figure: str, value: float, expected: bool) -> None:
    assert quoted(figure, [value]) == expected


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_code_for_a_tracker_logs_every_epoch(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[dict[str, str], list[tuple[int, dict[str, float]]]]] = []

    def log(values: dict[str, float], step: int) -> None:
        runs[-1][1].append((step, values))

    @contextmanager
    def start(**options: str) -> Iterator[SimpleNamespace]:
        runs.append((options, []))
        yield SimpleNamespace(log=log)

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(start_run=start, log_metrics=log))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=start))
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs/experiments.md").read_text()
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if package in code)
    exec(code, {})  # the code that a user copies

    name = {"mlflow": {"run_name": "fine, seed {}"}, "wandb": {"project": "cifar2", "name": "fine, seed {}"}}[package]
    metrics = ("train_loss", "val_loss", "val_accuracy")
    with (ROOT / "metrics/curves/fine.csv").open() as file:
        expected = [
            (
                {key: value.format(seed) for key, value in name.items()},
                [(int(row["epoch"]), {metric: float(row[metric]) for metric in metrics}) for row in rows],
            )
            for seed, rows in groupby(csv.DictReader(file), lambda row: row["seed"])
        ]
    assert len(expected) > 1
    assert runs == expected
