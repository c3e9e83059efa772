"""Find images made from the same photograph: among the sets, and within the test set.

A model that remembers its training images looks better than it is on such test images, so evaluate measures the others
apart.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import near_duplicates, splits
from cifar2.figures import canvas
from cifar2.figures import near_duplicates as figures

PREPARED = Path("data/prepared")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    train, val, test = (splits.load(PREPARED / f"{name}.safetensors") for name in ("train", "val", "test"))
    seen, others = splits.join(train, val), ["train"] * len(train.x) + ["val"] * len(val.x)
    pairs, counts = None, {}
    if params.load().data.near_duplicates:
        of_train, of_val = (near_duplicates.find(split.x, test.x) for split in (train, val))
        pairs = near_duplicates.most_similar(of_train, of_val._replace(train=of_val.train + len(train.x)))
        counts = {
            "n_test": len(pairs.test),
            "n_test_of_train": len(of_train.test),
            "n_test_of_val": len(of_val.test),
            "n_val_of_train": len(near_duplicates.find(train.x, val.x).test),
            "n_test_of_test": len(near_duplicates.find_within(test.x).test),
        }
    files.write_csv(
        PREPARED / "near_duplicates.csv",
        ("test_index", "other_set", "other_index", "mirrored", "similarity"),
        [
            (test.index[i].item(), others[j], seen.index[j].item(), mirrored.item(), f"{similarity:.4f}")
            for i, j, mirrored, similarity in zip(*(pairs or near_duplicates.NONE), strict=True)
        ],
    )
    canvas.write(Path("metrics/figures/near_duplicates.png"), figures.gallery(seen, test, pairs))
    files.write_json(Path("metrics/near_duplicates.json"), counts)


if __name__ == "__main__":
    errors.run(main)
