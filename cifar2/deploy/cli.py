"""The command ``cifar2``: predict the class of any image with a trained model."""

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

import safetensors
import torch

from cifar2 import errors, files
from cifar2.dataset import image_file
from cifar2.networks import classifier, inference

PROJECT = Path(__file__).parents[2]
FINAL = Path("data/models/final.safetensors")
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Like `python -m cifar2.deploy.cli`, but also if PYTHONSAFEPATH is set.
MAIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from cifar2.deploy.cli import main; main()"


def main() -> None:
    errors.run(_main)


def _main() -> None:
    here = Path.cwd()
    checkouts = (folder for folder in (here, *here.parents) if os.path.exists(folder / "cifar2/deploy/cli.py"))  # noqa: PTH110 (as below)
    checkout = next(checkouts, PROJECT)
    if not PROJECT.samefile(checkout):
        # The environment may belong to another checkout, but code and model come from this one.
        os.execv(sys.executable, [sys.executable, "-c", MAIN, str(checkout), *sys.argv[1:]])  # noqa: S606
    parser = argparse.ArgumentParser(prog="cifar2", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    predict_ = commands.add_parser(
        "predict", help="predict the class of images", description="Predict the class of images."
    )
    predict_.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="a file that Pillow decodes, a folder of image files, or - for standard input",
    )
    predict_.add_argument("--model", help=f"a file or its https address (default: the project's {FINAL})")
    predict_.add_argument("--json", action="store_true", help="print a JSON array with one object per image")
    arguments = parser.parse_args()
    predict(arguments.images, arguments.model, arguments.json)


def predict(names: Sequence[str], model: str | None, as_json: bool) -> None:
    """Print the predicted class of each image with its probability, averaged over the models in the file.

    An image that cannot be read is reported on stderr, and the exit code is 1; the others are predicted.

    Args:
        names: image files, folders of image files, or ``-`` for standard input.
        model: the model file, or its address; by default the project's final model.
        as_json: whether to print JSON.

    Raises:
        UserError: the model is missing or corrupted, is not a model, or its training diverged.
    """
    path = _model(model)
    card, networks, _ = classifier.load(path)
    if not networks:
        raise errors.UserError(f"{path} holds no model: training {card.name} diverged")
    paths, failed = _expanded(names)
    readable, images = [], []
    for path in paths:
        try:
            images.append(image_file.read(path, card.image_size))
            readable.append(path)
        except errors.UserError as error:
            failed = True
            _report(f"error: {error}")
    probabilities = []
    if images:
        x = inference.inputs(card, torch.stack(images))
        flip_average = card.configuration.flip_average
        by_model = [inference.probabilities(network, x, flip_average) for network in networks.values()]
        probabilities = torch.stack(by_model).mean(0).tolist()
    predictions = [
        {
            "image": str(path),
            "class": card.classes[row.index(max(row))],
            "probability": max(row),
            "probabilities": dict(zip(card.classes, row, strict=True)),
        }
        for path, row in zip(readable, probabilities, strict=True)
    ]
    if as_json:
        _print(json.dumps(predictions, indent=2) + "\n")
    else:
        width = max(map(len, card.classes))
        lines = [f"{p['class']:{width}}  {p['probability']:7.2%}  {_printable(p['image'])}\n" for p in predictions]
        _print("".join(lines))
    if failed:
        sys.exit(1)


def _model(name: str | None) -> Path:
    """The path of the model file.

    Raises:
        UserError: it is not a model file of this pipeline.
    """
    if name is None:
        if Path.cwd().samefile(PROJECT):
            return FINAL
        if not (PROJECT / FINAL).exists():
            if not (PROJECT / "params.yaml").exists():
                raise errors.UserError(
                    "no model here, as cifar2 is installed without its project; name one with --model"
                )
            raise errors.UserError(
                f"{PROJECT / FINAL} is missing; `dvc repro` in {PROJECT} makes it, `dvc pull` fetches it; "
                "--model names another one"
            )
        return PROJECT / FINAL
    if re.match("https?://", name):
        return _downloaded(name)
    path = _path(name)
    if path.is_dir():
        raise errors.UserError(f"{path} is a folder; name a .safetensors file in it")
    if path.suffix == ".onnx":
        raise errors.UserError(f"{path} is for other programs; name the .safetensors file of the same model")
    if path.suffix != ".safetensors":
        raise errors.UserError(f"{path} is not a model of this pipeline: those in data/models/ end with .safetensors")
    try:
        ours = _is_ours(path)
    except (OSError, safetensors.SafetensorError):
        return path  # missing or corrupted; reading it reports which
    if not ours:
        raise errors.UserError(f"{path} is not a model of this pipeline, but of another program")
    return path


def _is_ours(path: Path) -> bool:
    """Whether a file of tensors was written by this pipeline."""
    with safetensors.safe_open(path, "pt") as file:
        return "about" in (file.metadata() or {})


def _downloaded(url: str) -> Path:
    """The model file at ``url``, downloaded once into PyTorch's cache.

    Raises:
        UserError: it cannot be downloaded, or is not a model file of this pipeline.
    """
    path = Path(torch.hub.get_dir(), "cifar2", f"{hashlib.sha256(url.encode()).hexdigest()}.safetensors")
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            try:
                file = Path(folder, path.name)
                torch.hub.download_url_to_file(url, str(file), progress=sys.stderr.isatty())
                ours = _is_ours(file)
            except (OSError, HTTPException, ValueError) as error:
                raise errors.UserError(f"{url} cannot be downloaded ({error})") from error
            except safetensors.SafetensorError:
                ours = False
            if not ours:
                raise errors.UserError(f"{url} is not a model of this pipeline")
            files.write(path, file.read_bytes())
    return path


def _path(name: str) -> Path:
    """``name`` as a path.

    Raises:
        UserError: it is a URL, whose two slashes would become one.
    """
    if URL.match(name):
        raise errors.UserError(f"{name} is a URL; download it and name the file")
    return Path(name)


def _expanded(names: Sequence[str]) -> tuple[list[Path], bool]:
    """The files that ``names`` refer to, and whether any name failed, which is reported."""
    paths, failed = [], False
    for name in names:
        try:
            path = _path(name)
            if not os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises if the name is too long)
                paths.append(path)
                continue
            images, others = image_file.in_folder(path)
            paths += images
            if others:
                suffixes = ", ".join(sorted({other.suffix or other.name for other in others}))
                _report(f"skipped in {path}: {len(others)} not named like images that Pillow decodes ({suffixes})")
        except errors.UserError as error:
            failed = True
            _report(f"error: {error}")
    return paths, failed


def _printable(text: str) -> str:
    """Escape control characters, which a terminal obeys, and characters that it cannot show."""
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else repr(c)[1:-1] for c in text)


def _report(line: str) -> None:
    print(_printable(line), file=sys.stderr)


def _print(text: str) -> None:
    encoding = sys.stdout.encoding
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)
    except OSError as error:
        # Otherwise Python writes the rest at exit, and reports the error again.
        with open(os.devnull, "wb") as null:  # noqa: PTH123 (os.devnull is no path to work with)
            os.dup2(null.fileno(), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # as from `| head`, which stops reading
            raise


if __name__ == "__main__":
    main()
