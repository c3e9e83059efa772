"""Train one configuration, once a seed: ``python stages/train.py NAME``."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.networks import classifier
from cifar2.training import checkpoint, hardware, loop
from cifar2.training.progress import Progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="an entry of `configs` or `beyond` in params.yaml")
    name = parser.parse_args().name
    everything = params.load()
    known = everything.configs | everything.beyond
    if name not in known:
        raise errors.UserError(f"params.yaml: neither configs nor beyond has {name!r}, only {', '.join(known)}")
    settings, configuration = everything.train, known[name]
    root = Path("beyond" if name in everything.beyond else "")

    device = hardware.device(settings.device)
    folder = Path("data", configuration.input)
    split, val_split = splits.load(folder / "train.safetensors"), splits.load(folder / "val.safetensors")
    card = classifier.describe(name, configuration, everything, split)
    if card.convolves:
        hardware.fix_convolutions(settings.threads)
    train, val = (loop.examples(part, card.mean, card.std, device) for part in (split, val_split))
    parameters = {"card": card, "configuration": configuration, "train": settings}
    inputs = [folder / "train.safetensors", folder / "val.safetensors"]
    diverged = None
    networks = {}
    curves: list[list[loop.Epoch]] = []
    with (
        checkpoint.kept(name, parameters, inputs, Path(__file__)) as checkpoints,
        Progress(name, len(settings.seeds) * (configuration.epochs or settings.epochs)) as progress,
    ):
        try:
            for seed in settings.seeds:
                network = classifier.build(card.shape, seed).to(device)
                curves.append([])
                saved = checkpoint.Checkpoint(checkpoints / f"seed{seed}.safetensors", everything.checkpoints.every)
                for epoch in loop.train(network, train, val, configuration, settings, seed, saved):
                    curves[-1].append(epoch)
                    progress.show(epoch)
                networks[f"seed{seed}"] = network
        except loop.Diverged as reason:
            diverged = str(reason)
            print(f"{name} diverged at {reason}")

        if diverged is None:
            summary = loop.summarise(curves, list(networks.values()), train, val, configuration)
        else:
            summary = dict.fromkeys(loop.SUMMARY)  # no number instead of a NaN
        accuracies = {key: summary[key] for key in classifier.ACCURACIES}
        classifier.save(root / f"data/models/train/{name}.safetensors", card, networks, accuracies)
        loop.write_curves(root / f"metrics/curves/{name}.csv", name, curves)
        files.write_json(
            root / f"metrics/train/{name}.json",
            {
                **summary,
                "n_seeds": len(settings.seeds),
                "n_parameters": classifier.n_parameters(network),
                "diverged": diverged,
            },
        )


if __name__ == "__main__":
    errors.run(main)
