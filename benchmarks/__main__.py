"""Run the benchmarks, print a table, and write ``benchmarks/record.json``: ``make bench``.

``python -m benchmarks`` runs those that take minutes; ``python -m benchmarks MODULE...`` runs some.  The record keeps
the rows of the other modules if they were measured on this machine.
"""

import argparse
import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cifar2  # noqa: F401 (sets environment variables before torch is imported)

# isort: split
import joblib
import torch

from benchmarks import epoch, families, installation, limit, pipeline, scale, stages, update
from benchmarks.measure import Row
from cifar2 import errors, params

RECORD = Path(__file__).parent / "record.json"
SHORT = {"epoch": epoch, "limit": limit, "update": update, "stages": stages}
LONG = {"families": families, "installation": installation, "scale": scale, "pipeline": pipeline}
MODULES = SHORT | LONG
PARTS = ("start_up", "input", "work", "output")


def machine() -> dict[str, Any]:
    """The machine and the versions behind the numbers."""
    capabilities = torch.cpu.get_capabilities()
    return {
        "processor": capabilities.get("cpu_name") or platform.processor(),
        "cores": joblib.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(name)],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": " ".join((platform.system(), platform.machine(), *platform.libc_ver())),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "torchvision", "numpy", "dvc")},
        "environment": {name: os.environ[name] for name in ("MKL_CBWR", "THP_MEM_ALLOC_ENABLE")},
    }


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| row | ours | rival | ratio (quartiles) | target | what |", "|---|---|---|---|---|---|"]
    for r in rows:
        spread = f" ({r['spread'][0]:.3f} to {r['spread'][1]:.3f})" if r["spread"] else ""
        target = "" if r["target"] is None else f"{r['target']}: {'met' if r['met'] else 'not met'}"
        parts = [f", {part.replace('_', '-')} {r[part]:.2f}" for part in PARTS if part in r]
        lines.append(
            f"| `{r['name']}` | {r['ours']:.3g} {r['unit']} | {r['rival']:.3g} {r['unit']} "
            f"| {r['is']} = {r['ratio']:.3f}{spread} | {target} | {r['what']}{''.join(parts)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", choices=MODULES, help=f"default: {' '.join(SHORT)}")
    names = parser.parse_args().modules or list(SHORT)
    stages.check()
    settings = params.load()
    rows: list[Row] = []
    if RECORD.exists() and (before := json.loads(RECORD.read_text()))["machine"] == machine():
        rows = before["rows"]
    for name in names:
        today = {"module": name, "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
        found = MODULES[name].rows(settings)
        print(table(found), flush=True)
        rows = [r for r in rows if r["module"] != name] + [today | r for r in found]
        RECORD.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    missed = [r["name"] for r in rows if r["met"] is False]
    print(f"targets not met on this machine: {', '.join(missed) or 'none'}")


if __name__ == "__main__":
    errors.run(main)
