"""Compare the augmented MLPs under ``beyond`` with the first of them, the baseline, image by image."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.evaluation.uncertainty import standard_error
from cifar2.networks import classifier
from cifar2.training import loop

# isort: split
import torch

FAMILY = "mlp_augmented"


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    val = splits.load(Path("data/prepared/val.safetensors"))

    def correct(name: str) -> torch.Tensor:
        """Whether each seed's model classifies each image correctly, seeds x images."""
        card, networks, _ = classifier.load(Path(f"beyond/data/models/train/{name}.safetensors"))
        images = loop.examples(val, card.mean, card.std)
        return torch.stack([loop.score(n, images, card.flip_average).correct for n in networks.values()])

    names = [name for name, configuration in params.load().beyond.items() if configuration.family == FAMILY]
    baseline = correct(names[0]).double()
    rows = []
    for name in names:
        other = correct(name).double()
        lost = baseline - other
        rows.append((name, other.mean().item(), standard_error(other), lost.mean().item(), standard_error(lost)))
    files.write_csv(
        Path("beyond/metrics/ablation.csv"),
        ("name", "val_accuracy", "val_accuracy_se", "difference", "difference_se"),
        rows,
    )


if __name__ == "__main__":
    errors.run(main)
