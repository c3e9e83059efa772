"""Train one configuration, once a seed: ``python stages/train.py NAME``."""

import argparse
from pathlib import Path

from cifar2 import dataset, errors, files, hardware, models, params, training
from cifar2.progress import Progress

TRAIN, VAL = Path("data/prepared/train.safetensors"), Path("data/prepared/val.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="an entry of `configs` in params.yaml")
    name = parser.parse_args().name
    everything = params.load()
    if name not in everything.configs:
        raise errors.UserError(f"params.yaml: configs has no {name!r}, only {', '.join(everything.configs)}")
    settings, configuration = everything.train, everything.configs[name]

    device = hardware.device(settings.device)
    split = dataset.load(TRAIN)
    train, val = (training.examples(part, everything.normalise, device) for part in (split, dataset.load(VAL)))
    card = models.describe(name, settings, everything.normalise, split.classes)
    status = "finished"
    networks = {}
    curves: list[list[training.Epoch]] = []
    with Progress(name, len(settings.seeds) * settings.epochs) as progress:
        try:
            for seed in settings.seeds:
                network = models.build(card, seed).to(device)
                curves.append([])
                for epoch in training.train(network, train, val, configuration, settings, seed):
                    curves[-1].append(epoch)
                    progress.show(epoch)
                networks[f"seed{seed}"] = network
        except training.Diverged as reason:
            status = f"diverged at {reason}"
            print(f"{name} {status}")

    if status == "finished":
        summary = training.summarise(curves, list(networks.values()), train, val)
    else:
        summary = dict.fromkeys(training.SUMMARY)  # no number instead of a NaN
    models.save(Path(f"data/models/train/{name}.safetensors"), card, networks)
    training.write_curves(Path(f"metrics/curves/{name}.csv"), name, curves)
    files.write_json(
        Path(f"metrics/train/{name}.json"),
        {
            "status": status,
            **summary,
            "n_seeds": len(settings.seeds),
            "n_parameters": sum(parameter.numel() for parameter in network.parameters()),
        },
    )


if __name__ == "__main__":
    errors.run(main)
