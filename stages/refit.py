"""Train a final model, a selected configuration with a fresh seed: ``python stages/refit.py NAME``.

NAME is ``final`` for the best of all, or ``final_mlp`` for the best of the original report's family.  The seed played
no part in the selection.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.evaluation.scores import score
from cifar2.networks import classifier
from cifar2.training import checkpoint, record
from cifar2.training.loop import Diverged
from cifar2.training.progress import Progress
from cifar2.training.run import Run

# isort: split
from pydantic import TypeAdapter, ValidationError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="final or final_mlp")
    final = parser.parse_args().name
    parameters = params.load()
    refit = parameters.refit
    name, configuration = selected(Path(f"data/models/selected/{final}.json"))
    if refit.include_val and configuration.early_stopping:
        raise errors.UserError(f"params.yaml: refit.include_val leaves no validation set to stop {name} early by")

    inputs = [Path("data", configuration.input, f"{split}.safetensors") for split in ("train", "val")]
    train, val = map(splits.load, inputs)
    # Images that were trained on say nothing about new ones.
    sets = (splits.join(train, val), None) if refit.include_val else (train, val)
    run = Run(name, configuration, parameters, *sets)
    depends_on = {"card": run.card, "train": parameters.train, "refit": refit}
    with (
        checkpoint.kept(final, depends_on, inputs, Path(__file__)) as checkpoints,
        Progress(f"{final} {name}", configuration.epochs or parameters.train.epochs) as progress,
    ):
        try:
            for epoch in run.epochs([refit.seed], checkpoints):
                progress.show(epoch)
        except Diverged as reason:
            raise errors.UserError(
                f"refit of {name} diverged at {reason}; try another refit.seed in params.yaml"
            ) from None

        (network,), (curve,) = run.networks, run.curves
        accuracies = {
            "val_accuracy": score(network, run.val, configuration.flip_average).accuracy if run.val else None,
            "train_accuracy": score(network, run.train, configuration.flip_average).accuracy,
        }
        classifier.save(Path(f"data/models/{final}.safetensors"), run.card, {"final": network}, accuracies)
        record.write_curves(Path(f"metrics/refit/{final}_curve.csv"), name, [curve])
        files.write_json(
            Path(f"metrics/refit/{final}.json"),
            {
                "config": name,
                **accuracies,
                "kept_epoch": run.kept_epochs,
                "trained_on": ["train", "val"] if refit.include_val else ["train"],
            },
        )


def selected(path: Path) -> tuple[str, params.AnyConfiguration]:
    """The name of the selected configuration, and the configuration."""
    document = files.read_json(path)
    try:
        return document["name"], TypeAdapter(params.AnyConfiguration).validate_python(document["configuration"])
    except ValidationError as error:
        raise files.corrupted(path, error) from error


if __name__ == "__main__":
    errors.run(main)
