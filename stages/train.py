"""Train one configuration, once a seed: ``python stages/train.py NAME``."""

import argparse
from pathlib import Path

from cifar2 import dataset, errors, files, models, params, training
from cifar2.mynet import MyNet
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

    split = dataset.load(TRAIN)
    train, val = (training.examples(part, everything.normalise) for part in (split, dataset.load(VAL)))
    card = models.describe(name, settings, everything.normalise, split.classes)
    status = "finished"
    networks: dict[str, MyNet] = {}
    curves: list[list[training.Epoch]] = []
    with Progress(name, len(settings.seeds) * settings.epochs) as progress:
        try:
            for seed in settings.seeds:
                network = models.build(card, seed)
                curves.append([])
                for epoch in training.train(network, train, val, configuration, settings, seed):
                    curves[-1].append(epoch)
                    progress.show(epoch)
                networks[f"seed{seed}"] = network
        except training.Diverged as reason:
            status = f"diverged at {reason}"
            print(f"{name} {status}")

    finished = status == "finished"
    summary = (
        training.summarise(
            curves,
            [training.score(n, train) for n in networks.values()],
            [training.score(n, val) for n in networks.values()],
        )
        if finished
        else dict.fromkeys(training.SUMMARY)
    )
    models.save(Path(f"data/models/train/{name}.safetensors"), card, networks)
    files.write_csv(Path(f"metrics/curves/{name}.csv"), training.Epoch._fields, [e for curve in curves for e in curve])
    files.write_json(
        Path(f"metrics/train/{name}.json"),
        {"status": status, **summary, "n_seeds": len(settings.seeds), "n_parameters": models.n_parameters(card)},
    )


if __name__ == "__main__":
    errors.run(main)
