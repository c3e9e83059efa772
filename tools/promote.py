"""Add a trial of the last sweep to ``configs``: ``python -m tools.promote RANK NAME``."""

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
    """Add an entry at the end of ``configs`` to ``text``, a params.yaml, and leave the rest unchanged."""
    text = text.rstrip("\n") + "\n"
    configs = next(value for key, value in YAML().compose(text).value if key.value == "configs")
    end = text.index("\n", _end(configs)) + 1
    entry = io.StringIO()
    YAML().dump({name: dict(configuration)}, entry)
    return text[:end] + textwrap.indent(entry.getvalue(), "  ") + text[end:]


def _end(node: Node) -> int:
    """The end of the last value in ``node``: a block's own end mark comes after the comments that follow it."""
    if isinstance(node, CollectionNode) and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, MappingNode) else last)
    return int(node.end_mark.index)


def promoted(all_params: params.Params, rank: int) -> dict[str, Any]:
    """The configuration of the trial at ``rank``.

    Raises:
        UserError: there is no table, no such rank, or the sweep in params.yaml is a different one.
    """
    sweep = all_params.sweep
    rows = list(csv.DictReader(files.read(TABLE).decode().splitlines()))
    if not 1 <= rank <= len(rows):
        raise errors.UserError(f"{TABLE} has no rank {rank}, only 1 to {len(rows)}")
    row = rows[rank - 1]
    point = space.point(sweep.space, sweep.seed, int(row["trial"]))
    if any(row.get(name) != ("" if value is None else str(value)) for name, value in point.items()):
        raise errors.UserError(f"{TABLE} does not match sweep in {PARAMS}; run `make sweep`")
    return all_params.configs[sweep.base].model_dump(exclude_unset=True) | point


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rank", type=int, help="the trial's rank in metrics/sweep.csv, from 1")
    parser.add_argument("name", help="the name of the new configuration")
    arguments = parser.parse_args()
    all_params = params.load(PARAMS)
    name = arguments.name
    if name in all_params.configs | all_params.extended_configs:
        raise errors.UserError(f"{PARAMS} already has a configuration {name}; choose another name")
    try:
        TypeAdapter(params.Name).validate_python(name)
    except ValidationError as error:
        raise errors.UserError(f"the new name {params.explain(error)}") from None
    configuration = promoted(all_params, arguments.rank)
    files.write(PARAMS, with_entry(PARAMS.read_text(), name, configuration).encode())
    print(f"added {name} to {PARAMS}; `dvc repro` trains it")


if __name__ == "__main__":
    errors.run(main)
