"""Extract features of a set of images with a pretrained backbone: ``python stages/features.py SET``."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, params
from cifar2.dataset import splits
from cifar2.networks import transfer
from cifar2.training import hardware


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=["train", "val", "test"])
    file = f"{parser.parse_args().set}.safetensors"
    parameters = params.load()
    hardware.fix_instructions(parameters.train.instructions)
    split = splits.load(Path("data/prepared", file))
    features = transfer.extract_features(split.x, **parameters.features.model_dump())
    splits.save(Path("data/features", file), replace(split, x=features, features=parameters.features))


if __name__ == "__main__":
    errors.run(main)
