"""Training time of the selected configuration of each family: one seed, on all cores."""

import json
import tempfile
from pathlib import Path

from benchmarks.measure import Row, row
from benchmarks.stages import ROOT, probe, scratch
from cifar2.params import Params


def rows(params: Params) -> list[Row]:
    """One row for each selected configuration of both pipelines, against the first one, and one for the features."""
    evaluated = [path for place in ("", "extended") for path in (ROOT / place / "metrics/evaluate").glob("*.json")]
    best = dict.fromkeys(json.loads(path.read_text())["config"] for path in sorted(evaluated))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scratch(folder, seeds=params.train.seeds[:1])
        took = {of: probe(folder, "stages/train.py", of)["wall"] for of in best}
        features = probe(folder, "stages/features.py", "train")["wall"]
    first = next(iter(took))
    return [
        *(
            row(f"train_{of}", f"stage train for `{of}`, one seed, against `{first}`", [seconds], [took[first]], "s")
            for of, seconds in took.items()
        ),
        row(
            "features",
            "stage features, once for all seeds, against the first configuration",
            [features],
            [took[first]],
            "s",
        ),
    ]
