"""Compare the MLPs under ``beyond`` with the first of their family under ``configs``, picture by picture."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import dataset, errors, files, models, params, training
from cifar2.uncertainty import standard_error

FAMILY = "mlp_augmented"


def main() -> None:
    everything = params.load()
    val = dataset.load(Path("data/prepared/val.safetensors"))

    def correct(path: Path) -> torch.Tensor:
        """Whether each seed's model is right about each picture, seeds x pictures."""
        card, networks, _ = models.load(path)
        images = training.examples(val, card.mean, card.std)
        return torch.stack([training.score(n, images, card.flip_average).correct for n in networks.values()])

    reference = next(name for name, c in everything.configs.items() if c.family == FAMILY)
    whole = correct(Path(f"data/models/train/{reference}.safetensors")).double()
    rows = []
    for name in [reference, *(name for name, c in everything.beyond.items() if c.family == FAMILY)]:
        root = Path("beyond" if name in everything.beyond else "")
        other = correct(root / f"data/models/train/{name}.safetensors").double()
        lost = whole - other
        rows.append((name, other.mean().item(), standard_error(other), lost.mean().item(), standard_error(lost)))
    files.write_csv(
        Path("beyond/metrics/ablation.csv"),
        ("name", "val_accuracy", "val_accuracy_se", "difference", "difference_se"),
        rows,
    )


if __name__ == "__main__":
    errors.run(main)
