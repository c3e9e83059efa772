"""Save the first three validation images of each class as PNG files: ``python -m tools.examples FOLDER``.

Each file is named after its class.
"""

import argparse
from pathlib import Path

from PIL import Image

from cifar2 import errors
from cifar2.dataset import splits

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
    folder.mkdir(parents=True, exist_ok=True)
    for path, image in images.items():
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    print(*images)


if __name__ == "__main__":
    errors.run(main)
