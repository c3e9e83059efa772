"""Explain the final model: what its predictions rest on, and a map of the test set by its features.

Nothing is trained or selected by the result.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.evaluation.attribution import occlusion
from cifar2.evaluation.projection import project
from cifar2.figures import canvas
from cifar2.figures import explain as figures
from cifar2.networks import classifier, inference
from cifar2.networks.image_classifier import ImageClassifier, outputs
from cifar2.training import hardware

# isort: split
import torch

# Images with a map, as many misclassified as correct ones.
N_IMAGES = 12


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    train = params.load().train
    hardware.fix_threads(train.threads)
    hardware.fix_instructions(train.instructions)
    card, networks, _ = classifier.load(Path("data/models/final.safetensors"))
    network = networks["final"]
    test = splits.load(Path("data/prepared/test.safetensors"))
    evaluated, _ = files.read_tensors(Path("data/evaluated/final.safetensors"))

    probabilities = torch.softmax(evaluated["logits"][0].double(), 1)
    correct = (probabilities.argmax(1) == test.labels).nonzero().flatten()
    spread = torch.linspace(0, len(correct) - 1, min(N_IMAGES, len(correct))).long()
    shown = torch.cat([evaluated["mistakes"][:N_IMAGES], correct[spread]])
    model = ImageClassifier(card, network).eval()
    maps = occlusion(model, test.x[shown], probabilities[shown].argmax(1))
    # Where there are extracted features, the network begins with them.
    extracted = Path("data/features/test.safetensors")
    seen_by, x = (network, splits.load(extracted).x) if card.features else (model, test.x)
    features = torch.cat([outputs(seen_by, batch)[1] for batch in torch.split(x, inference.BATCH)])
    positions, variance = project(features)
    canvas.write(
        Path("metrics/figures/occlusion_final.png"),
        figures.occlusion(test.x[shown], maps, test.labels[shown], probabilities[shown], test.classes),
    )
    files.write_tensors(Path("data/explained.safetensors"), {"positions": positions}, {"variance": variance})


if __name__ == "__main__":
    errors.run(main)
