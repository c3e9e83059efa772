"""The command ``cifar2``: what a trained model takes pictures of one's own for."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from cifar2 import errors, models, pictures

FINAL = Path("data/models/final.safetensors")
# What `python -m cifar2.cli` would do, also where PYTHONSAFEPATH is set.
MAIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from cifar2.cli import main; main()"


def main() -> None:
    checkout = Path.cwd()
    if (checkout / "cifar2/cli.py").exists() and not Path(__file__).samefile(checkout / "cifar2/cli.py"):
        # The command belongs to the environment, which may be another checkout's; the model is of this one.
        os.execv(sys.executable, [sys.executable, "-c", MAIN, str(checkout), *sys.argv[1:]])  # noqa: S606
    parser = argparse.ArgumentParser(prog="cifar2", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    predict_ = commands.add_parser("predict", help="say what is on pictures", description="Say what is on pictures.")
    predict_.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="a file that Pillow reads")
    predict_.add_argument("--model", type=Path, default=FINAL, help="one of data/models/ (default: %(default)s)")
    predict_.add_argument("--json", action="store_true", help="print a JSON array, one object a picture")
    arguments = parser.parse_args()
    errors.run(lambda: predict(arguments.pictures, arguments.model, arguments.json))


def predict(paths: Sequence[Path], model: Path, as_json: bool) -> None:
    """Print the class of each picture, with its probability; of a file with several models, with their mean.

    A picture that cannot be read is named on stderr, the others are answered, and the exit code is 1.

    Raises:
        UserError: the model is missing, damaged or none, or its training diverged.
    """
    if model.suffix != ".safetensors":
        raise errors.UserError(f"{model} is no model of this pipeline: those of data/models/ end with .safetensors")
    card, networks, _ = models.load(model)
    if not networks:
        raise errors.UserError(f"{model} holds no model: training {card.configuration} diverged")
    readable, images = [], []
    for path in paths:
        try:
            images.append(pictures.read(path))
            readable.append(path)
        except errors.UserError as error:
            print(f"error: {error}", file=sys.stderr)
    answers = []
    if images:
        x = models.inputs(card, torch.stack(images))
        by_model = [models.probabilities(network, x, card.flip_average) for network in networks.values()]
        answers = torch.stack(by_model).mean(0).tolist()
    found = [
        {
            "picture": str(path),
            "class": card.classes[probabilities.index(max(probabilities))],
            "probability": max(probabilities),
            "probabilities": dict(zip(card.classes, probabilities, strict=True)),
        }
        for path, probabilities in zip(readable, answers, strict=True)
    ]
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        width = max(map(len, card.classes))
        for answer in found:
            print(f"{answer['class']:{width}}  {answer['probability']:7.2%}  {answer['picture']}")
    if len(readable) < len(paths):
        sys.exit(1)


if __name__ == "__main__":
    main()
