"""Images of one's own, made as small as CIFAR-10's."""

import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from cifar2.errors import UserError

SIZE = (32, 32)
STDIN = Path("-")
# A larger file may be meant to fill the memory; uncompressed, the largest image that Pillow reads is smaller.
MAX_BYTES = 2**30
# Pillow needs another program to draw EPS, and recognises the others without decoding them.
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# By EXIF orientation, how the stored image becomes upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# White in greyscale of more than 8 bits, whose files do not say how many are used; 1 is that of fractions and masks.
WHITES = (1, 2**8 - 1, 2**10 - 1, 2**12 - 1, 2**14 - 1, 2**16 - 1)

Image.init()
FORMATS = [name for name in Image.ID if name not in NOT_DECODED]
# Of the file names of these formats.
SUFFIXES = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
# Text beside a PNG's image: a chunk may be as long as Pillow allows all of them to be together, 64 MB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
logging.getLogger("PIL").addHandler(logging.NullHandler())  # otherwise it prints to stderr


def in_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """The image files in ``folder``, and its other files, by name; without hidden files and without its folders.

    An image file is one with a suffix in ``SUFFIXES``.

    Raises:
        UserError: the folder cannot be read, or has no image files.
    """
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir())
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from None
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not images:
        raise UserError(f"{folder} has no files named like images that Pillow decodes; folders in it are not searched")
    return images, [path for path in files if path not in images]


def read(path: Path) -> Tensor:
    """The image in a file of any format that Pillow decodes, uint8, 3 x 32 x 32, channels red, green, blue.

    It is rotated as its EXIF orientation says, laid on white where it is transparent, cropped to the largest square in
    its middle and resized with Lanczos' filter; of an animation or a file of several pages it is the first image.

    Greyscale of more than 8 bits or in floating point is scaled so that white is the smallest of ``WHITES`` that is not
    exceeded, since files with 12 bits in 16 do not say so.

    Args:
        path: of the file, or ``-`` for standard input.

    Raises:
        UserError: the file is missing, is no image, is corrupted, has grey values of unknown scale, or is so large that
            it may be meant to fill the memory (``MAX_BYTES``, Pillow's ``MAX_IMAGE_PIXELS``).
    """
    try:
        with open(0, "rb", closefd=False) if path == STDIN else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    if not content:
        raise UserError(f"{path} is empty")
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES:,} bytes; make it smaller first")
    try:
        with warnings.catch_warnings(), _quiet_stderr():
            warnings.simplefilter("ignore")  # of corrupted metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            small = ImageOps.fit(_decoded(content), SIZE, Image.Resampling.LANCZOS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller first") from None
    except UnidentifiedImageError:
        raise UserError(
            f"{path} is not an image that Pillow decodes; if it is one in another format (HEIC, SVG, EPS, raw), "
            "convert it to JPEG or PNG first"
        ) from None
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    except Exception as error:  # Pillow's documentation promises OSError, but for a corrupted file it may be any
        reason = " ".join(str(error).split()) or type(error).__name__
        if "MAX_TEXT" in reason:
            reason = f"more than {PngImagePlugin.MAX_TEXT_MEMORY:,} bytes of text beside the image"
        raise UserError(f"{path} cannot be read: {reason}; save it again as JPEG or PNG") from None
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Silence libtiff, which reports corrupted files on stderr past Python."""
    try:
        stderr = os.dup(2)
    except OSError:  # closed
        yield
        return
    try:
        with open(os.devnull, "wb") as null:  # noqa: PTH123 (os.devnull is no path to work with)
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _decoded(content: bytes) -> Image.Image:
    """The image upright and opaque, in RGB."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        deep = re.search(";16[BLN]", str(image.tile))  # 16 bits a channel, of which Pillow keeps the upper 8
        image.load()
        upright = _upright(image)
    if upright.mode.startswith(("I", "F")):
        upright = _eight_bits(upright)
    elif deep and np.asarray(upright.convert("RGB")).max() < 16:
        raise UserError("has 16 bits a channel but uses at most 12, of unknown scale; save it with 8 bits first")
    return _on_white(upright)


def _upright(image: Image.Image) -> Image.Image:
    """The image rotated as its EXIF data says.

    ``ImageOps.exif_transpose`` also rewrites that data, which fails where any of it is corrupted.
    """
    try:
        method = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # unreadable metadata leave the image as it is stored
        method = None
    return image if method is None else image.transpose(method)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greyscale of more than 8 bits, or in floating point, in 8."""
    values = np.asarray(image).astype(np.float32)
    low, high = values.min(), values.max()
    if not 0 <= low <= high <= WHITES[-1] or 1 < high < 16:
        raise UserError(f"has grey values from {low:g} to {high:g}, of unknown scale; save it with 8 bits first")
    white = next(white for white in WHITES if high <= white)
    return Image.fromarray((values * (255 / white) + 0.5).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    opaque = Image.new("RGBA", image.size, "white")
    opaque.alpha_composite(image.convert("RGBA"))
    return opaque.convert("RGB")
