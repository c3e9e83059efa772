import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, PngImagePlugin

from cifar2.dataset import image_file
from cifar2.errors import UserError
from tests.conftest import random_split

WHITE, BLACK, RED, GREEN = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0)
NOISE = random_split(1, 0).x[0]
NOISY = Image.fromarray(NOISE.permute(1, 2, 0).numpy())
# How a camera rotates the image, by EXIF orientation: https://exiftool.org/TagNames/EXIF.html
TURNED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def saved(tmp_path, image, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def read(tmp_path, image, name="image.png", **options):
    return image_file.read(saved(tmp_path, image, name, **options), 32)


def plain(mode, colour, size=(40, 40)):
    return Image.new(mode, size, colour)


def is_all(image, colour, tolerance=0):
    difference = image.int() - torch.tensor(colour).view(3, 1, 1)
    return image.shape[0] == 3 and difference.abs().max() <= tolerance


@pytest.mark.parametrize(
    ("name", "options"),
    [("p.png", {}), ("p.bmp", {}), ("p.tiff", {}), ("p.webp", {"lossless": True}), ("no_ending", {"format": "PNG"})],
)
def test_a_lossless_image_of_32_by_32_is_unchanged(tmp_path, name, options):
    small = read(tmp_path, NOISY, name, **options)
    assert small.dtype == torch.uint8
    assert torch.equal(small, NOISE)


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (400, 41), (33, 1000)])
def test_an_image_is_cropped_to_its_central_square(tmp_path, size):
    image, side = plain("RGB", RED, size), min(size)
    left, top = ((length - side) // 2 for length in size)
    image.paste(GREEN, (left, top, left + side, top + side))
    small = read(tmp_path, image)
    assert small.shape == (3, 32, 32)
    # The filter reads a few pixels beyond the edges.
    assert is_all(small[:, 3:-3, 3:-3], GREEN)
    assert small[0].float().mean() < 10


def test_downscaling_averages_all_pixels(tmp_path):
    stripes = torch.zeros(256, 256, 3, dtype=torch.uint8)
    stripes[:, ::2] = 255
    assert is_all(read(tmp_path, Image.fromarray(stripes.numpy())), (127,) * 3, tolerance=8)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (1, 100), (3000, 2)])
def test_a_small_image_is_enlarged(tmp_path, size):
    small = read(tmp_path, plain("RGB", (10, 200, 30), size))
    assert small.shape == (3, 32, 32)
    assert is_all(small, (10, 200, 30))


@pytest.mark.parametrize(("name", "options"), [("p.png", {}), ("p.tiff", {}), ("p.webp", {"lossless": True})])
@pytest.mark.parametrize("orientation", TURNED)
def test_an_image_is_rotated_by_its_exif_orientation(tmp_path, orientation, name, options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = TURNED[orientation]
    stored = NOISY if turn is None else NOISY.transpose(turn)
    assert torch.equal(read(tmp_path, stored, name, exif=exif, **options), NOISE)


# Orientation 6, a camera's name, and metadata that Pillow parses specially for that camera.
EXIF = Image.Exif()
EXIF.update({0x0112: 6, 0x010F: "samsung", 0x0110: "S1", 0x011A: 72.0})
EXIF.get_ifd(0x8769).update({0x9003: "2020:01:01 00:00:00", 0x927C: bytes(40)})
EXIF.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0)})
EXIF = EXIF.tobytes()


def test_an_image_is_rotated_in_spite_of_corrupted_exif_data(tmp_path):
    image = plain("RGB", RED)
    image.paste(GREEN, (0, 0, 20, 40))
    path = saved(tmp_path, image, "p.jpg", exif=EXIF, quality=100)
    content = bytearray(path.read_bytes())
    content[content.index(b"Exif\0\0") + 6 + 11] = 26
    path.write_bytes(content)
    upright = image_file.read(path, 32)
    assert is_all(upright[:, :12], GREEN, tolerance=4)
    assert is_all(upright[:, 20:], RED, tolerance=4)


def test_long_text_in_a_png_leaves_the_image(tmp_path):
    info = PngImagePlugin.PngInfo()
    for name in ("one", "two", "three"):
        info.add_itxt(name, "x" * 5_000_000, zip=True)
    assert torch.equal(read(tmp_path, NOISY, pnginfo=info), NOISE)


def test_a_png_with_too_much_text_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 2000)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 2000)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("w", "x" * 3000, zip=True)
    line = "cannot be read: more than 2,000 bytes of text beside the image; save it again as JPEG or PNG"
    assert refusal(saved(tmp_path, NOISY, pnginfo=info)) == line


@pytest.mark.parametrize(
    ("mode", "colour", "expected"), [("RGBA", (255, 0, 0), (255, 127, 127)), ("LA", (0,), (127,) * 3)]
)
@pytest.mark.parametrize("name", ["p.png", "p.webp"])
def test_transparent_is_white_and_half_transparent_half(tmp_path, mode, colour, expected, name):
    assert is_all(read(tmp_path, plain(mode, (*colour, 0)), name), WHITE)
    assert is_all(read(tmp_path, plain(mode, (*colour, 128)), name, lossless=True), expected, tolerance=1)


@pytest.mark.parametrize(("mode", "name"), [("P", "p.png"), ("P", "p.gif"), ("L", "p.png"), ("RGB", "p.png")])
def test_a_transparent_colour_is_white_and_others_stay(tmp_path, mode, name):
    image = plain("L", 80, (64, 64))
    image.paste(0, (0, 0, 32, 64))
    transparency = BLACK if mode == "RGB" else 0
    small = read(tmp_path, image.convert(mode), name, transparency=transparency)
    assert is_all(small[:, :, :12], WHITE)
    assert is_all(small[:, :, 20:], (80,) * 3)


@pytest.mark.parametrize(
    ("image", "name", "expected"),
    [
        (plain("L", 100), "p.png", (100,) * 3),
        (plain("1", 1), "p.png", WHITE),
        (plain("1", 0), "p.png", BLACK),
        (plain("P", 0), "p.png", BLACK),
        (plain("CMYK", (0, 255, 255, 0)), "p.jpg", (255, 0, 0)),
        (plain("CMYK", (0, 255, 255, 0)), "p.tiff", (255, 0, 0)),
        (plain("YCbCr", (100, 128, 128)), "p.jpg", (100,) * 3),
    ],
)
def test_other_colour_modes_become_rgb(tmp_path, image, name, expected):
    assert is_all(read(tmp_path, image, name), expected, tolerance=2)


# White is the smallest of 1 and 8, 10, 12, 14 and 16 bits.
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("white", [1, 255, 1023, 4095, 16_383, 65_535])
def test_deep_greyscale_has_the_smallest_white_not_exceeded(tmp_path, kind, white):
    for high in (white, 0.7 * white, 0):
        ramp = np.linspace(0, high, 32).astype(kind).repeat(32).reshape(32, 32)
        small = read(tmp_path, Image.fromarray(ramp), "p.tiff")
        expected = torch.from_numpy(ramp / white * 255)
        assert (small - expected).abs().max() <= 0.51


@pytest.mark.parametrize("values", [(0, 1.02), (0, 15), (-1, 1), (-0.001, 255), (0, 65_536), (0, np.nan), (0, np.inf)])
def test_greyscale_of_unknown_scale_is_refused(tmp_path, values):
    image = Image.fromarray(np.array([values], np.float32))
    line = refusal(saved(tmp_path, image, "p.tiff"))
    assert line.startswith("has grey values from ")
    assert line.endswith(", of unknown scale; save it with 8 bits first")


def png_of_16_bits(colour):
    """One pixel with 16 bits a channel, which Pillow does not write."""
    chunks = {
        b"IHDR": struct.pack(">2I5B", 1, 1, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(b"\0" + struct.pack(">3H", *colour)),
        b"IEND": b"",
    }
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks.items():
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return content


def test_12_bits_in_16_per_channel_are_refused(tmp_path):
    """Pillow keeps the upper 8 of the 16 bits, which would make the first image almost black."""
    path = tmp_path / "p.png"
    path.write_bytes(png_of_16_bits((4095, 2000, 100)))
    assert refusal(path).startswith("has 16 bits per channel but uses at most 12, of unknown scale; save it ")
    path.write_bytes(png_of_16_bits((65_535, 2000, 100)))
    assert is_all(image_file.read(path, 32), (255, 7, 0))


@pytest.mark.parametrize("name", ["p.gif", "p.webp", "p.png", "p.tiff"])
def test_an_animation_gives_its_first_image(tmp_path, name):
    small = read(tmp_path, plain("RGB", RED), name, save_all=True, append_images=[plain("RGB", GREEN)])
    assert is_all(small, RED, tolerance=4)


def refusal(path):
    """The error for an unreadable file, without its name: one line."""
    with pytest.raises(UserError) as error:
        image_file.read(path, 32)
    message = str(error.value)
    assert message.startswith(f"{path} ")
    assert "\n" not in message
    return message.removeprefix(f"{path} ")


NO_IMAGES = {
    "a.txt": b"a text\n",
    "a.pdf": b"%PDF-1.7\n",
    "a.png": b"\x89PNG\r\n\x1a\n",
    "a.dat": bytes(1000),
    "a.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    # Ghostscript, if installed, would run these commands.
    "a.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
    # Pillow recognises these, but needs another library to decode them.
    "a.h5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "a.mpg": b"\0\0\1\xb3" + bytes(100),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_a_format_that_pillow_does_not_decode_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(NO_IMAGES[name])
    assert refusal(tmp_path / name) == (
        "is not an image that Pillow decodes; if it is one in another format (HEIC, SVG, EPS, raw), "
        "convert it to JPEG or PNG first"
    )


def test_an_endless_file_is_refused(monkeypatch):
    monkeypatch.setattr(image_file, "MAX_BYTES", 1000)
    assert refusal(Path("/dev/zero")) == "is larger than 1,000 bytes; make it smaller first"


def test_an_image_is_read_from_standard_input(tmp_path, standard_input):
    standard_input(saved(tmp_path, NOISY))
    assert torch.equal(image_file.read(image_file.STDIN, 32), NOISE)
    assert refusal(image_file.STDIN) == "is empty"


@pytest.mark.parametrize("name", ["p.png", "p.jpg"])
def test_a_truncated_file_is_named(tmp_path, name):
    path = saved(tmp_path, NOISY, name)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert refusal(path).startswith("cannot be read: ")


@pytest.mark.parametrize("error", [OSError, SyntaxError])
def test_any_error_of_pillow_is_one_line(tmp_path, monkeypatch, error):
    def load(_):
        raise error("no reason")

    path = saved(tmp_path, NOISY)
    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert refusal(path) == "cannot be read: no reason; save it again as JPEG or PNG"


ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
# What Pillow writes into a file of each format beside the image, by suffix.
METADATA = {
    **{suffix: {"exif": EXIF, "icc_profile": ICC, "xmp": XMP} for suffix in ("jpg", "mpo", "webp", "avif")},
    "png": {"exif": EXIF, "icc_profile": ICC, "iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + XMP, "tEXt": b"a\0b"},
    "tiff": {"exif": EXIF, "icc_profile": ICC},
    **{suffix: {"comment": b"a comment"} for suffix in ("gif", "jp2")},
    **{suffix: {} for suffix in ("bmp", "dds", "ico", "pcx", "ppm", "qoi", "sgi", "tga")},
}


def mutated(rng, content):
    """Overwrite, insert and delete a few bytes of ``content``, or truncate it."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(content) + 1)
        new = rng.choice((rng.randbytes(1), rng.randbytes(4), bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff"))
        content[at : at + rng.choice((0, len(new), len(new), len(new), 16))] = new
    return bytes(content[: len(content) if rng.random() < 0.9 else rng.randrange(len(content) + 1)])


def fuzzed(rng, suffix, image, content):
    """An image file with corrupted metadata in an intact container, or corrupted anywhere."""
    metadata = {name: mutated(rng, data) if rng.random() < 0.5 else data for name, data in METADATA[suffix].items()}
    if not metadata or suffix in ("avif", "tiff") or rng.random() < 0.3:  # these two are slow to write, or check it
        return mutated(rng, content)
    if suffix == "png":
        info = metadata["pnginfo"] = PngImagePlugin.PngInfo()
        for name in ("iTXt", "tEXt"):
            info.add(name.encode(), metadata.pop(name))
    file = io.BytesIO()
    image.save(file, Image.registered_extensions()[f".{suffix}"], **metadata)
    return file.getvalue()


@pytest.mark.parametrize("suffix", METADATA)
def test_a_corrupted_file_gives_an_image_or_one_line(tmp_path, capfd, suffix):
    """No warning, no output, no other error."""
    rng = random.Random(suffix)
    image = NOISY.convert("P") if suffix == "gif" else NOISY
    if suffix == "png":
        path = saved(tmp_path, image, "p.png", exif=EXIF, icc_profile=ICC)
    else:
        options = {"compression": "tiff_lzw", "exif": b""} if suffix == "tiff" else {}
        path = saved(tmp_path, image, f"p.{suffix}", **METADATA[suffix] | options)
    contents = [path.read_bytes()]
    if suffix == "tiff":
        contents.append(saved(tmp_path, image, "p.tiff", **METADATA[suffix]).read_bytes())
    lines = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(100):
            path.write_bytes(fuzzed(rng, suffix, image, rng.choice(contents)))
            try:
                assert image_file.read(path, 32).shape == (3, 32, 32)
            except UserError as error:
                lines.append(str(error))
    assert 0 < len(lines) < 100
    assert all(line.startswith(f"{path} ") and "\n" not in line for line in lines)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("most", [1023, 400])
def test_an_image_with_too_many_pixels_is_refused(tmp_path, monkeypatch, most):
    """Pillow warns above the limit, and raises above twice the limit."""
    path = saved(tmp_path, NOISY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    assert refusal(path) == f"has more than {most:,} pixels; make it smaller first"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1024)
    assert torch.equal(image_file.read(path, 32), NOISE)
