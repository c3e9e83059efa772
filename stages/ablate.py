"""Compare the augmented MLPs under ``beyond`` with the first of them, the baseline, image by image."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.dataset.examples import examples
from cifar2.evaluation.scores import score
from cifar2.evaluation.uncertainty import standard_error
from cifar2.networks import classifier

# isort: split
import torch

FAMILY = "mlp_augmented"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    val = splits.load(Path("data/prepared/val.safetensors"))
    names = [name for name, configuration in params.load().beyond.items() if configuration.family == FAMILY]
    correct = {name: correct_predictions(name, val) for name in names}
    baseline = correct[names[0]]
    rows = []
    for name, other in correct.items():
        drop = baseline - other
        rows.append((name, other.mean().item(), standard_error(other), drop.mean().item(), standard_error(drop)))
    files.write_csv(
        Path("beyond/metrics/ablation.csv"),
        ("name", "val_accuracy", "val_accuracy_se", "difference", "difference_se"),
        rows,
    )


def correct_predictions(name: str, val: splits.Split) -> torch.Tensor:
    """1 where the model of a seed classifies an image correctly, else 0; float64, seeds x images."""
    card, networks, _ = classifier.load(Path(f"beyond/data/models/train/{name}.safetensors"))
    images = examples(val, card.mean, card.std)
    scores = [score(network, images, card.configuration.flip_average) for network in networks.values()]
    return torch.stack([s.correct for s in scores]).double()


if __name__ == "__main__":
    errors.run(main)
