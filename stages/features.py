"""Let a pretrained network look at the training and validation pictures once, and keep what it makes of them."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, params
from cifar2.dataset import splits as dataset
from cifar2.networks import transfer
from cifar2.training import hardware

PREPARED, FEATURES = Path("data/prepared"), Path("data/features")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    everything = params.load()
    hardware.fix_convolutions(everything.train.threads)
    splits = {name: dataset.load(PREPARED / name) for name in ("train.safetensors", "val.safetensors")}
    for name, split in splits.items():
        features = transfer.features(split.images, **everything.features.model_dump())
        dataset.save(FEATURES / name, replace(split, images=features, features=everything.features))


if __name__ == "__main__":
    errors.run(main)
