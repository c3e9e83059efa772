"""Compare the variants of the ablation with their base, image by image on the validation set."""

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

MODELS = Path("data/models/train")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    ablation = params.load().extended.ablation
    val = splits.load(Path("data/prepared/val.safetensors"))
    base = correct_predictions(MODELS / f"{ablation.base}.safetensors", val)
    variants = {
        name: correct_predictions("extended" / MODELS / f"{name}.safetensors", val) for name in ablation.changes
    }
    rows = [row(name, base, variant) for name, variant in {ablation.base: base, **variants}.items()]
    files.write_csv(
        Path("extended/metrics/ablation.csv"),
        ("name", "val_accuracy", "val_accuracy_se", "difference", "difference_se"),
        rows,
    )


def row(name: str, base: torch.Tensor, variant: torch.Tensor) -> tuple[str, float, float, float, float]:
    """The accuracy of a variant, and the drop from the base, each with its standard error."""
    drop = base - variant
    return name, variant.mean().item(), standard_error(variant), drop.mean().item(), standard_error(drop)


def correct_predictions(path: Path, val: splits.Split) -> torch.Tensor:
    """1 where the model of a seed classifies an image correctly, else 0; float64, seeds x images."""
    card, networks, _ = classifier.load(path)
    images = examples(val, card.mean, card.std)
    scores = [score(network, images, card.configuration.flip_average) for network in networks.values()]
    return torch.stack([s.correct for s in scores]).double()


if __name__ == "__main__":
    errors.run(main)
