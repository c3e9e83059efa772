"""Save the first three validation images of each class as PNG files: ``python -m tools.examples FOLDER``.

A file is named after its image's class.
"""

import argparse
from pathlib import Path

from cifar2 import errors, files
from cifar2.dataset import splits
from cifar2.figures import canvas as figures

N = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to save them")
    folder = parser.parse_args().folder
    val = splits.load(Path("data/prepared/val.safetensors"))
    images = {
        folder / f"{name}{number}.png": image
        for label, name in enumerate(val.classes)
        for number, image in enumerate(val.x[val.labels == label][:N], start=1)
    }
    for path, image in images.items():
        files.write(path, figures.png(image))
    print(*images)


if __name__ == "__main__":
    errors.run(main)
