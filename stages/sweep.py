"""Try many configurations from a search space, on Ray: ``python stages/sweep.py``.

The results of a trial are kept in ``.sweep`` under a fingerprint, so that it is not trained again after an interruption
or in a larger sweep.
"""

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.figures import canvas
from cifar2.figures import sweep as figures
from cifar2.sweep import space, trial
from cifar2.training.fingerprint import fingerprint

# Not a DVC output: DVC deletes a stage's outputs before running it.
FOLDER = Path(".sweep")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    parameters = params.load()
    sweep_params = parameters.sweep
    base = parameters.configs[sweep_params.base]
    points = [space.point(sweep_params.space, sweep_params.seed, number) for number in range(sweep_params.trials)]
    configurations = [space.configuration(base, point) for point in points]

    train = parameters.train.model_copy(update={"seeds": sweep_params.seeds})
    folder = Path("data", base.input)
    inputs = [folder / "train.safetensors", folder / "val.safetensors"]
    depends_on = {"train": train, "normalise": parameters.normalise, "asha": sweep_params.asha}
    common = fingerprint(depends_on, inputs, Path(trial.__file__))
    keys = [hashlib.sha256(f"{common}{c.model_dump_json()}".encode()).hexdigest()[:16] for c in configurations]
    by_key = dict(zip(keys, configurations, strict=True))

    waiting = {key: c for key, c in by_key.items() if not (FOLDER / f"{key}.json").exists()}
    print(f"{len(by_key)} trials, {len(waiting)} of them new", flush=True)
    if waiting:
        try:
            from cifar2.sweep import cluster
        except ModuleNotFoundError as error:
            raise errors.UserError(
                f"no {error.name} here; `make install-sweep` gets all that the sweep needs"
            ) from error
        train_split, val_split = (splits.load(path) for path in inputs)
        trials = trial.Trials(parameters.model_copy(update={"train": train}), train_split, val_split, waiting)
        cluster.run(
            list(waiting),
            trials.run,
            {"cpu": 1 if base.model == "mlp" else train.threads, "gpu": int(train.device == "cuda")},
            sweep_params.asha,
            lambda key, result: files.write_json(FOLDER / f"{key}.json", result),
            max((trial.accuracy(outcome(key)) for key in by_key.keys() - waiting.keys()), default=0.0),
        )

    numbers = [keys.index(key) for key in by_key]
    rows = [{"trial": n, **points[n], **outcome(keys[n])} for n in numbers]
    rows.sort(key=trial.order)
    measured = [row for row in rows if row["val_accuracy"] is not None]
    if not measured:
        raise errors.UserError("every trial diverged; lower sweep.space.lr in params.yaml")
    table = [(rank, *row.values()) for rank, row in enumerate(rows, 1)]
    files.write_csv(Path("metrics/sweep.csv"), ("rank", *rows[0]), table)
    canvas.write(Path("metrics/figures/sweep.png"), figures.trials(measured, sweep_params.space))
    canvas.write(Path("metrics/figures/sweep_by_parameter.png"), figures.by_parameter(measured, sweep_params.space))


def outcome(key: str) -> dict[str, Any]:
    """The outcome of a finished trial."""
    kept = files.read_json(FOLDER / f"{key}.json")
    return {name: kept[name] for name in trial.OUTCOME}


if __name__ == "__main__":
    errors.run(main)
