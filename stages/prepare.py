"""Get the images of the chosen classes as training, validation and test sets."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the code of this checkout, whatever is installed
from cifar2 import errors, files, params
from cifar2.dataset import splits
from cifar2.dataset.examples import normalise
from cifar2.figures import canvas
from cifar2.figures import prepare as figures

PREPARED, FIGURES = Path("data/prepared"), Path("metrics/figures")
# At most this many pixel values are behind the figure, those of 20,000 images of CIFAR-10; more would take more memory.
N_DRAWN = 20_000 * 3 * 32 * 32


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    parameters = params.load()
    sets = find(parameters.data)
    train = sets.splits["train"]
    counts = {name: splits.counts(split) for name, split in sets.splits.items()}
    mean, std = splits.channel_statistics(train.x)
    drawn = slice(None, None, 1 + train.x.numel() // N_DRAWN)
    images, labels = train.x[drawn], train.labels[drawn]
    normalised = normalise(images, parameters.normalise.mean, parameters.normalise.std)

    for name, split in sets.splits.items():
        splits.save(PREPARED / f"{name}.safetensors", split)
    rows = [
        (name, i.item(), split.classes[label], of_image)
        for name, split in sets.splits.items()
        for i, label, of_image in zip(split.index, split.labels, sets.names[name], strict=True)
    ]
    files.write_csv(PREPARED / "images.csv", ("set", "index", "class", "name"), rows)
    canvas.write(FIGURES / "samples.png", figures.samples(images, normalised, labels, train.classes))
    canvas.write(FIGURES / "class_distribution.png", figures.class_distribution(counts))
    files.write_json(
        Path("metrics/prepare.json"),
        {
            "own_images": parameters.data.own_images,
            **{f"n_{name}": len(split.labels) for name, split in sets.splits.items()},
            "class_counts": counts,
            **sets.about,
            "channel_mean": mean,
            "channel_std": std,
        },
    )


def find(data: params.Data) -> splits.Sets:
    """The images of the source; each has a module, and only the one in question is imported."""
    if data.own_images:
        from cifar2.dataset import image_folder as source
    else:
        from cifar2.dataset import cifar10 as source  # type: ignore[no-redef]
    return source.sets(data)


if __name__ == "__main__":
    errors.run(main)
