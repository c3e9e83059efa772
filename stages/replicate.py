"""Train a configuration with many seeds, and keep only its validation results: ``python stages/replicate.py NAME``."""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, params
from cifar2.evaluation import summary
from cifar2.training import checkpoint, processes
from cifar2.training.loop import Diverged
from cifar2.training.progress import Progress
from cifar2.training.run import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="an entry of `configs` in params.yaml")
    name = parser.parse_args().name
    parameters = params.load()
    if name not in parameters.configs:
        raise errors.UserError(f"params.yaml: configs has no {name!r}, only {', '.join(parameters.configs)}")
    configuration = parameters.configs[name]
    seeds = list(range(parameters.extended.replication.n_seeds))

    inputs = [Path("data", configuration.input, f"{split}.safetensors") for split in ("train", "val")]
    load = partial(Run.load, name, configuration, parameters, inputs)
    run = load()
    depends_on = {"card": run.card, "train": parameters.train, "seeds": seeds}
    with (
        checkpoint.kept(f"replicate_{name}", depends_on, inputs, Path(__file__)) as checkpoints,
        Progress(f"{name} again", len(seeds) * (configuration.epochs or parameters.train.epochs)) as progress,
    ):
        try:
            for epoch in processes.epochs(load, run, seeds, checkpoints):
                progress.show(epoch)
        except Diverged as reason:
            raise errors.UserError(f"{name} diverged at {reason}; lower its learning rate in params.yaml") from None
        summary.save(Path(f"extended/data/replicated/{name}.safetensors"), run.results())


if __name__ == "__main__":
    errors.run(main)
