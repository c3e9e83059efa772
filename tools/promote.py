"""Make a trial of the last sweep an entry of ``configs``: ``python -m tools.promote RANK NAME``."""

import argparse
import csv
import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node

from cifar2 import errors, files, params
from cifar2.sweep import space

PARAMS, TABLE = Path("params.yaml"), Path("metrics/sweep.csv")


def with_entry(text: str, name: str, configuration: Mapping[str, Any]) -> str:
    """``text``, a params.yaml, with one more entry at the end of ``configs``; all else stays as it is."""
    text = text.rstrip("\n") + "\n"
    configs = next(value for key, value in YAML().compose(text).value if key.value == "configs")
    end = text.index("\n", _end(configs)) + 1
    entry = io.StringIO()
    YAML().dump({name: dict(configuration)}, entry)
    return text[:end] + textwrap.indent(entry.getvalue(), "  ") + text[end:]


def _end(node: Node) -> int:
    """Where its last value ends: what stands on several lines is said to end after the comments that follow it."""
    if isinstance(node, CollectionNode) and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, MappingNode) else last)
    return int(node.end_mark.index)


def promoted(everything: params.Params, rank: int) -> dict[str, Any]:
    """The configuration of the trial in line ``rank`` of the table.

    Raises:
        UserError: there is no table, no such line, or params.yaml has another sweep now.
    """
    settings = everything.sweep
    rows = list(csv.DictReader(files.read(TABLE).decode().splitlines()))
    if not 1 <= rank <= len(rows):
        raise errors.UserError(f"{TABLE} has no rank {rank}, only 1 to {len(rows)}")
    row = rows[rank - 1]
    point = space.point(settings.space, settings.seed, int(row["trial"]))
    if any(row.get(name) != ("" if value is None else str(value)) for name, value in point.items()):
        raise errors.UserError(f"{TABLE} is not of the sweep in {PARAMS}; `make sweep` brings them together")
    return everything.configs[settings.base].model_dump(exclude_unset=True) | point


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rank", type=int, help="its line in metrics/sweep.csv, from 1")
    parser.add_argument("name", help="of the new entry")
    arguments = parser.parse_args()
    everything = params.load(PARAMS)
    name = arguments.name
    if name in everything.configs | everything.extended_configs:
        raise errors.UserError(f"{PARAMS} has a configuration {name} already; choose another name")
    try:
        TypeAdapter(params.Name).validate_python(name)
    except ValidationError as error:
        raise errors.UserError(f"the new name {params.explain(error)}") from None
    configuration = promoted(everything, arguments.rank)
    files.write(PARAMS, with_entry(PARAMS.read_text(), name, configuration).encode())
    print(f"{PARAMS} has {name} now; `dvc repro` trains it")


if __name__ == "__main__":
    errors.run(main)
