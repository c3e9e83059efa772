"""Train the final model: the selected configuration, with a seed that played no part in its selection."""

from pathlib import Path

from pydantic import ValidationError

from cifar2 import dataset, errors, files, hardware, models, params, training
from cifar2.progress import Progress

TRAIN, VAL = Path("data/prepared/train.safetensors"), Path("data/prepared/val.safetensors")
SELECTED = Path("metrics/select.json")


def main() -> None:
    everything = params.load()
    settings, refit = everything.train, everything.refit
    selected = files.read_json(SELECTED, ("selected", "configuration"))
    try:
        name, configuration = selected["selected"], params.Configuration.model_validate(selected["configuration"])
    except ValidationError as error:
        raise files.damaged(SELECTED, error) from error

    device = hardware.device(settings.device)
    splits = dataset.load(TRAIN), dataset.load(VAL)
    data = dataset.join(*splits) if refit.include_val else splits[0]
    train = training.examples(data, everything.normalise, device)
    # Pictures that were learned from say nothing about new ones.
    val = None if refit.include_val else training.examples(splits[1], everything.normalise, device)
    card = models.describe(name, settings, everything.normalise, data.classes)
    network = models.build(card, refit.seed).to(device)
    curve = []
    with Progress(f"final {name}", settings.epochs) as progress:
        try:
            for epoch in training.train(network, train, val, configuration, settings, refit.seed):
                curve.append(epoch)
                progress.show(epoch)
        except training.Diverged as reason:
            raise errors.UserError(
                f"refit of {name} diverged at {reason}; try another refit.seed in params.yaml"
            ) from None

    models.save(Path("data/models/final.safetensors"), card, {"final": network})
    training.write_curves(Path("metrics/refit_curve.csv"), name, [curve])
    files.write_json(
        Path("metrics/refit.json"),
        {
            "config": name,
            "n_train": len(train.y),
            "train_accuracy": training.score(network, train).accuracy,
            "val_accuracy": training.score(network, val).accuracy if val else None,
        },
    )


if __name__ == "__main__":
    errors.run(main)
