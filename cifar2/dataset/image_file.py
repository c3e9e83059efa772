"""Any image file, resized to a small square."""

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

STDIN = Path("-")
# The largest image that Pillow reads is smaller than this, even uncompressed.
MAX_BYTES = 2**30
# Pillow needs another program to render EPS, and recognises the others without decoding them.
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# The transposition that turns a stored image upright, by its EXIF orientation.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Possible values of white in greyscale of more than 8 bits; 1 is white in floating point and in masks.
WHITES = (1, 2**8 - 1, 2**10 - 1, 2**12 - 1, 2**14 - 1, 2**16 - 1)

Image.init()
FORMATS = [name for name in Image.ID if name not in NOT_DECODED]
# File name suffixes of these formats.
SUFFIXES = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
# Text in a PNG: a single chunk may be as long as Pillow allows for all of them, 64 MB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
logging.getLogger("PIL").addHandler(logging.NullHandler())  # otherwise Pillow logs to stderr


def in_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the image files in ``folder`` (by their suffix), and its other files; both sorted, without hidden files.

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


def read(path: Path, size: int) -> Tensor:
    """Read an image file in any format that Pillow decodes, as uint8, 3 x size x size, channels red, green, blue.

    The image is rotated by its EXIF orientation, drawn on white where it is transparent, cropped to its central square
    and resized with the Lanczos filter. An animation or a file of several pages gives its first image.

    Greyscale of more than 8 bits or in floating point is scaled so that the smallest possible value in ``WHITES``
    becomes white: a file of 12 bits in 16 does not state its 12.

    Args:
        path: the file, or ``-`` for standard input.
        size: height and width of the result, in pixels.

    Raises:
        UserError: the file is missing, is not an image, is corrupted, has grey values of unknown scale, or is larger
            than ``MAX_BYTES`` or Pillow's ``MAX_IMAGE_PIXELS``.
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
            warnings.simplefilter("ignore")  # about corrupted metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            small = ImageOps.fit(_decoded(content), (size, size), Image.Resampling.LANCZOS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller first") from None
    except UnidentifiedImageError:
        raise UserError(
            f"{path} is not an image that Pillow decodes; if it is one in another format (HEIC, SVG, EPS, raw), "
            "convert it to JPEG or PNG first"
        ) from None
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    except Exception as error:  # Pillow documents OSError, but raises any type for a corrupted file
        reason = " ".join(str(error).split()) or type(error).__name__
        if "MAX_TEXT" in reason:
            reason = f"more than {PngImagePlugin.MAX_TEXT_MEMORY:,} bytes of text beside the image"
        raise UserError(f"{path} cannot be read: {reason}; save it again as JPEG or PNG") from None
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Silence libtiff, which writes to stderr without Python."""
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
    """Decode an image: upright, opaque, in RGB."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        deep = re.search(";16[BLN]", str(image.tile))  # 16 bits per channel, of which Pillow keeps the upper 8
        image.load()
        upright = _upright(image)
    if upright.mode.startswith(("I", "F")):
        upright = _eight_bits(upright)
    elif deep and np.asarray(upright.convert("RGB")).max() < 16:
        raise UserError("has 16 bits per channel but uses at most 12, of unknown scale; save it with 8 bits first")
    return _on_white(upright)


def _upright(image: Image.Image) -> Image.Image:
    """Rotate an image by its EXIF orientation, if that can be read.

    ``ImageOps.exif_transpose`` fails if any other EXIF data is corrupted, since it writes all of it again.
    """
    try:
        method = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # of many types
        method = None
    return image if method is None else image.transpose(method)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert greyscale of more than 8 bits, or in floating point, to 8 bits."""
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
