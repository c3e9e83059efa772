"""Pictures of one's own, made as small as CIFAR-10's."""

import struct
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from cifar2.errors import UserError

SIZE = (32, 32)
# Of what Pillow may raise for a damaged file; its documentation promises OSError alone.
DAMAGED = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, struct.error)


def read(path: Path) -> Tensor:
    """The picture in a file of any format that Pillow reads, uint8, 3 x 32 x 32, channels red, green, blue.

    It is turned as its EXIF data says, laid on white where it is transparent, cut to the largest square in its middle
    and made smaller with Lanczos' filter; of an animation it is the first picture
    (https://pillow.readthedocs.io/en/stable/reference/ImageOps.html).

    Raises:
        UserError: the file is missing, is no picture, is damaged, or is so large that it may be meant to fill the
            memory (Pillow's ``MAX_IMAGE_PIXELS``).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what else is damaged where the picture itself can be had
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                small = ImageOps.fit(
                    _on_white(_eight_bits(ImageOps.exif_transpose(image))), SIZE, Image.Resampling.LANCZOS
                )
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller first") from None
    except UnidentifiedImageError:
        raise UserError(f"{path} is not a picture in any format that Pillow reads") from None
    except DAMAGED as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{path} cannot be read: {reason}") from None
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits, which Pillow would cut off at 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    opaque = Image.new("RGBA", image.size, "white")
    opaque.alpha_composite(image.convert("RGBA"))
    return opaque.convert("RGB")
