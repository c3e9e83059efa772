"""Train the final model: the selected configuration, with a seed that played no part in its selection."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.networks import classifier
from cifar2.training import checkpoint, hardware, loop
from cifar2.training.progress import Progress

# isort: split
from pydantic import TypeAdapter, ValidationError

SELECTED = Path("data/models/selected.json")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    everything = params.load()
    settings, refit = everything.train, everything.refit
    selected = files.read_json(SELECTED, ("name", "configuration"))
    try:
        name = selected["name"]
        configuration = TypeAdapter(params.AnyConfiguration).validate_python(selected["configuration"])
    except ValidationError as error:
        raise files.damaged(SELECTED, error) from error
    if refit.include_val and configuration.early_stopping:
        raise errors.UserError(f"params.yaml: refit.include_val leaves no validation set to stop {name} early by")

    device = hardware.device(settings.device)
    folder = Path("data", configuration.input)
    train_split, val_split = splits.load(folder / "train.safetensors"), splits.load(folder / "val.safetensors")
    split = splits.join(train_split, val_split) if refit.include_val else train_split
    card = classifier.describe(name, configuration, everything, split)
    if card.convolves:
        hardware.fix_convolutions(settings.threads)
    train = loop.examples(split, card.mean, card.std, device)
    # Pictures that were learned from say nothing about new ones.
    val = None if refit.include_val else loop.examples(val_split, card.mean, card.std, device)
    network = classifier.build(card.shape, refit.seed).to(device)
    parameters = {"card": card, "configuration": configuration, "train": settings, "refit": refit}
    inputs = [folder / "train.safetensors", folder / "val.safetensors"]
    curve = []
    with (
        checkpoint.kept("final", parameters, inputs, Path(__file__)) as checkpoints,
        Progress(f"final {name}", configuration.epochs or settings.epochs) as progress,
    ):
        saved = checkpoint.Checkpoint(checkpoints / "final.safetensors", everything.checkpoints.every)
        try:
            for epoch in loop.train(network, train, val, configuration, settings, refit.seed, saved):
                curve.append(epoch)
                progress.show(epoch)
        except loop.Diverged as reason:
            raise errors.UserError(
                f"refit of {name} diverged at {reason}; try another refit.seed in params.yaml"
            ) from None

        accuracies = {
            "val_accuracy": loop.score(network, val, card.flip_average).accuracy if val else None,
            "train_accuracy": loop.score(network, train, card.flip_average).accuracy,
        }
        classifier.save(Path("data/models/final.safetensors"), card, {"final": network}, accuracies)
        loop.write_curves(Path("metrics/refit_curve.csv"), name, [curve])
        files.write_json(
            Path("metrics/refit.json"),
            {
                "config": name,
                **accuracies,
                "kept_epoch": [loop.kept_epoch(curve, configuration)],
                "trained_on": ["train", "val"] if refit.include_val else ["train"],
            },
        )


if __name__ == "__main__":
    errors.run(main)
