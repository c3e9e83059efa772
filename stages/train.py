"""Train one configuration, once per seed: ``python stages/train.py NAME``."""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.evaluation import summary
from cifar2.evaluation.summary import Summary, summarise
from cifar2.networks import classifier
from cifar2.training import checkpoint, processes, record
from cifar2.training.loop import Diverged
from cifar2.training.progress import Progress
from cifar2.training.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="an entry of `configs` or `extended` in params.yaml")
    name = parser.parse_args().name
    parameters = params.load()
    train_params, known = parameters.train, parameters.configs | parameters.extended_configs
    if name not in known:
        raise errors.UserError(f"params.yaml: neither configs nor extended has {name!r}, only {', '.join(known)}")
    configuration, root = known[name], Path("" if name in parameters.configs else "extended")

    inputs = [Path("data", configuration.input, f"{split}.safetensors") for split in ("train", "val")]
    load = partial(Run.load, name, configuration, parameters, inputs)
    run = load()
    depends_on = {"card": run.card, "train": train_params}
    diverged = None
    with (
        checkpoint.kept(name, depends_on, inputs, Path(__file__)) as checkpoints,
        Progress(name, len(train_params.seeds) * (configuration.epochs or train_params.epochs)) as progress,
    ):
        try:
            for epoch in processes.epochs(load, run, train_params.seeds, checkpoints):
                progress.show(epoch)
        except Diverged as reason:
            diverged = str(reason)
            print(f"{name} diverged at {reason}")

        # No number instead of a NaN.
        results = summary.nothing() if diverged else run.results()
        measured = dict.fromkeys(Summary._fields) if diverged else summarise(results, run.kept_epochs)._asdict()
        networks = {f"seed{seed}": n for seed, n in zip(train_params.seeds, run.networks, strict=False)}
        accuracies = {key: measured[key] for key in ("val_accuracy", "train_accuracy")}
        classifier.save(root / f"data/models/train/{name}.safetensors", run.card, networks, accuracies)
        summary.save(root / f"data/validated/{name}.safetensors", results)
        record.write_curves(root / f"metrics/curves/{name}.csv", name, run.curves)
        counts = {"n_seeds": len(train_params.seeds), "n_parameters": run.n_parameters}
        files.write_json(root / f"metrics/train/{name}.json", {**measured, **counts, "diverged": diverged})


if __name__ == "__main__":
    errors.run(main)
