"""Check params.yaml before any stage that reads it runs: DVC deletes a stage's outputs first."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extended", action="store_true", help="for the extended pipeline")
    root = Path("extended" if parser.parse_args().extended else "")
    params.load()
    # It names no value, so that a changed one reruns only what depends on it.
    files.write_json(root / "data/checked.json", {"params.yaml": "valid"})


if __name__ == "__main__":
    errors.run(main)
