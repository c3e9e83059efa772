"""Extract features of the training and validation images with a pretrained backbone."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, params
from cifar2.dataset import splits
from cifar2.networks import transfer
from cifar2.training import hardware

PREPARED, FEATURES = Path("data/prepared"), Path("data/features")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    parameters = params.load()
    hardware.fix_convolutions(parameters.train.threads)
    sets = {name: splits.load(PREPARED / name) for name in ("train.safetensors", "val.safetensors")}
    for name, split in sets.items():
        features = transfer.extract_features(split.x, **parameters.features.model_dump())
        splits.save(FEATURES / name, replace(split, x=features, features=parameters.features))


if __name__ == "__main__":
    errors.run(main)
