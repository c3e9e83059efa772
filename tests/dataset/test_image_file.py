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
NOISE = random_split(1, 0).images[0]
NOISY = Image.fromarray(NOISE.permute(1, 2, 0).numpy())
# By EXIF orientation, how a camera so held turns what it sees: https://exiftool.org/TagNames/EXIF.html
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


def saved(tmp_path, image, name="picture.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def read(tmp_path, image, name="picture.png", **options):
    return image_file.read(saved(tmp_path, image, name, **options))


def plain(mode, colour, size=(40, 40)):
    return Image.new(mode, size, colour)


def is_all(found, colour, tolerance=0):
    difference = found.int() - torch.tensor(colour).view(3, 1, 1)
    return found.shape[0] == 3 and difference.abs().max() <= tolerance


@pytest.mark.parametrize(
    ("name", "options"),
    [("p.png", {}), ("p.bmp", {}), ("p.tiff", {}), ("p.webp", {"lossless": True}), ("no_ending", {"format": "PNG"})],
)
def test_a_picture_of_cifar10s_size_comes_back_exactly(tmp_path, name, options):
    found = read(tmp_path, NOISY, name, **options)
    assert found.dtype == torch.uint8
    assert torch.equal(found, NOISE)


@pytest.mark.parametrize("name", ["p.jpg", "p.webp", "p.gif"])
def test_a_format_with_losses_comes_back_nearly(tmp_path, name):
    assert is_all(read(tmp_path, plain("RGB", (200, 100, 50)), name), (200, 100, 50), tolerance=4)


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (400, 41), (33, 1000)])
def test_it_is_cut_to_the_square_in_its_middle(tmp_path, size):
    image, side = plain("RGB", RED, size), min(size)
    left, top = ((length - side) // 2 for length in size)
    image.paste(GREEN, (left, top, left + side, top + side))
    found = read(tmp_path, image)
    assert found.shape == (3, 32, 32)
    # The filter looks a little over the edges.
    assert is_all(found[:, 3:-3, 3:-3], GREEN)
    assert found[0].float().mean() < 10


def test_what_is_made_smaller_is_averaged_and_no_pixel_is_left_out(tmp_path):
    stripes = torch.zeros(256, 256, 3, dtype=torch.uint8)
    stripes[:, ::2] = 255
    assert is_all(read(tmp_path, Image.fromarray(stripes.numpy())), (127,) * 3, tolerance=8)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (1, 100), (3000, 2)])
def test_one_that_is_too_small_is_enlarged(tmp_path, size):
    found = read(tmp_path, plain("RGB", (10, 200, 30), size))
    assert found.shape == (3, 32, 32)
    assert is_all(found, (10, 200, 30))


@pytest.mark.parametrize(("name", "options"), [("p.png", {}), ("p.tiff", {}), ("p.webp", {"lossless": True})])
@pytest.mark.parametrize("orientation", TURNED)
def test_it_is_turned_as_its_exif_data_says(tmp_path, orientation, name, options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = TURNED[orientation]
    stored = NOISY if turn is None else NOISY.transpose(turn)
    assert torch.equal(read(tmp_path, stored, name, exif=exif, **options), NOISE)


# Orientation 6, a camera's name, and metadata that Pillow reads in a way of its own for that camera.
EXIF = Image.Exif()
EXIF.update({0x0112: 6, 0x010F: "samsung", 0x0110: "S1", 0x011A: 72.0})
EXIF.get_ifd(0x8769).update({0x9003: "2020:01:01 00:00:00", 0x927C: bytes(40)})
EXIF.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0)})
EXIF = EXIF.tobytes()


def test_a_wrong_type_in_the_exif_data_leaves_the_image(tmp_path):
    path = saved(tmp_path, plain("RGB", RED), "p.jpg", exif=EXIF, quality=100)
    content = bytearray(path.read_bytes())
    content[content.index(b"Exif\0\0") + 6 + 11] = 26
    path.write_bytes(content)
    assert is_all(image_file.read(path), RED, tolerance=4)


def test_long_text_in_a_png_leaves_the_image(tmp_path):
    info = PngImagePlugin.PngInfo()
    for name in ("one", "two", "three"):
        info.add_itxt(name, "x" * 5_000_000, zip=True)
    assert torch.equal(read(tmp_path, NOISY, pnginfo=info), NOISE)


def test_a_png_whose_text_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 2000)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 2000)
    info = PngImagePlugin.PngInfo()
    info.add_itxt("w", "x" * 3000, zip=True)
    line = "cannot be read: more than 2,000 bytes of text beside the image; save it again as JPEG or PNG"
    assert refusal(saved(tmp_path, NOISY, pnginfo=info)) == line


HALF = {"RGBA": (255, 0, 0, 128), "LA": (0, 128)}


@pytest.mark.parametrize(("mode", "wanted"), [("RGBA", (255, 127, 127)), ("LA", (127,) * 3)])
def test_what_is_half_transparent_is_half_white(tmp_path, mode, wanted):
    assert is_all(read(tmp_path, plain(mode, HALF[mode])), wanted, tolerance=1)


@pytest.mark.parametrize(("mode", "name"), [("RGBA", "p.png"), ("LA", "p.png"), ("RGBA", "p.webp")])
def test_what_is_wholly_transparent_is_white(tmp_path, mode, name):
    assert is_all(read(tmp_path, plain(mode, (*HALF[mode][:-1], 0)), name), WHITE)


@pytest.mark.parametrize(("mode", "name"), [("P", "p.png"), ("P", "p.gif"), ("L", "p.png"), ("RGB", "p.png")])
def test_a_colour_that_stands_for_transparency_is_white_and_the_others_stay(tmp_path, mode, name):
    image = plain("L", 80, (64, 64))
    image.paste(0, (0, 0, 32, 64))
    transparency = BLACK if mode == "RGB" else 0
    found = read(tmp_path, image.convert(mode), name, transparency=transparency)
    assert is_all(found[:, :, :12], WHITE)
    assert is_all(found[:, :, 20:], (80,) * 3)


@pytest.mark.parametrize(
    ("image", "name", "wanted"),
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
def test_it_may_have_other_channels_than_red_green_and_blue(tmp_path, image, name, wanted):
    assert is_all(read(tmp_path, image, name), wanted, tolerance=2)


# White is the smallest of 1 and 8, 10, 12, 14 and 16 bits.
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("white", [1, 255, 1023, 4095, 16_383, 65_535])
def test_deep_greyscale_has_the_smallest_white_not_exceeded(tmp_path, kind, white):
    for high in (white, 0.7 * white):
        ramp = np.linspace(0, high, 32).astype(kind).repeat(32).reshape(32, 32)
        found = read(tmp_path, Image.fromarray(ramp), "p.tiff")
        expected = torch.from_numpy(ramp / (white if ramp.max() else 1) * 255)
        assert (found - expected).abs().max() <= 0.51


def test_deep_greyscale_is_read_as_the_same_image_in_8_bits(tmp_path):
    grey = np.asarray(NOISY.convert("L"))
    expected = read(tmp_path, Image.fromarray(grey))
    for image in (grey * np.uint16(257), grey.astype(np.float32), grey / np.float32(255), grey * np.float32(257)):
        assert torch.equal(read(tmp_path, Image.fromarray(image), "p.tiff"), expected)
    assert torch.equal(read(tmp_path, Image.fromarray(grey * np.uint16(257)), "p.png"), expected)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_deep_greyscale_that_is_black_stays_black(tmp_path, kind):
    assert is_all(read(tmp_path, Image.fromarray(np.zeros((40, 40), kind)), "p.tiff"), BLACK)


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


def test_12_bits_a_channel_in_16_are_refused_and_16_are_read(tmp_path):
    """Pillow keeps the upper 8 of the 16: the first would be almost black."""
    path = tmp_path / "p.png"
    path.write_bytes(png_of_16_bits((4095, 2000, 100)))
    assert refusal(path).startswith("has 16 bits a channel but uses at most 12, of unknown scale; save it ")
    path.write_bytes(png_of_16_bits((65_535, 2000, 100)))
    assert is_all(image_file.read(path), (255, 7, 0))


@pytest.mark.parametrize("name", ["p.gif", "p.webp", "p.png", "p.tiff"])
def test_of_an_animation_it_is_the_first_picture(tmp_path, name):
    found = read(tmp_path, plain("RGB", RED), name, save_all=True, append_images=[plain("RGB", GREEN)])
    assert is_all(found, RED, tolerance=4)


def refusal(path):
    """What is said of a file that cannot be read: one line that names it."""
    with pytest.raises(UserError) as error:
        image_file.read(path)
    message = str(error.value)
    assert message.startswith(f"{path} ")
    assert "\n" not in message
    return message.removeprefix(f"{path} ")


def test_a_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "nothing.png") == "cannot be read: No such file or directory"


def test_a_folder_is_named(tmp_path):
    assert refusal(tmp_path) == "cannot be read: Is a directory"


NO_IMAGES = {
    "a.txt": b"a text\n",
    "a.pdf": b"%PDF-1.7\n",
    "a.png": b"\x89PNG\r\n\x1a\n",
    "a.dat": bytes(1000),
    "a.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    # Ghostscript, if installed, would run these commands.
    "a.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
    # Pillow recognises these, and decodes them with another library only.
    "a.h5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "a.mpg": b"\0\0\1\xb3" + bytes(100),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_a_file_in_no_format_that_pillow_decodes_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(NO_IMAGES[name])
    assert refusal(tmp_path / name) == (
        "is not an image that Pillow decodes; if it is one in another format (HEIC, SVG, EPS, raw), "
        "convert it to JPEG or PNG first"
    )


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "a.png").touch()
    assert refusal(tmp_path / "a.png") == "is empty"


def test_a_loop_of_links_is_named(tmp_path):
    (tmp_path / "a.png").symlink_to("a.png")
    assert refusal(tmp_path / "a.png") == "cannot be read: Too many levels of symbolic links"


def test_a_file_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(image_file, "MAX_BYTES", 1000)
    assert refusal(Path("/dev/zero")) == "is larger than 1,000 bytes; make it smaller first"


def test_an_image_is_read_from_standard_input(tmp_path, standard_input):
    standard_input(saved(tmp_path, NOISY))
    assert torch.equal(image_file.read(image_file.STDIN), NOISE)
    assert refusal(image_file.STDIN) == "is empty"


@pytest.mark.parametrize("name", ["p.png", "p.jpg"])
def test_a_file_of_which_half_is_missing_is_named(tmp_path, name):
    path = saved(tmp_path, NOISY, name)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert refusal(path).startswith("cannot be read: ")


FORMATS = ["png", "jpg", "gif", "bmp", "tiff", "webp", "avif", "jp2"]


@pytest.mark.parametrize("ending", FORMATS)
def test_wherever_a_file_ends_nothing_but_a_clear_line_is_raised_or_warned_of(tmp_path, ending):
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if ending in ("png", "jpg", "tiff", "webp", "avif") else {}
    path = saved(tmp_path, NOISY, f"p.{ending}", **options)
    content = path.read_bytes()
    lines = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for length in sorted({*range(60), *range(60, len(content), max(1, len(content) // 40))}):
            path.write_bytes(content[:length])
            try:
                assert image_file.read(path).shape == (3, 32, 32)
            except UserError as error:
                lines.append(str(error))
    assert not warned
    assert len(lines) >= 10
    assert all(line.startswith(f"{path} ") and "\n" not in line for line in lines)


@pytest.mark.parametrize(
    "error", [OSError, SyntaxError, TypeError, MemoryError, RecursionError, EOFError, struct.error]
)
def test_whatever_pillow_raises_for_a_damaged_file_is_a_clear_line(tmp_path, monkeypatch, error):
    def load(_):
        raise error("of no use")

    path = saved(tmp_path, NOISY)
    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert refusal(path) == "cannot be read: of no use; save it again as JPEG or PNG"


ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
# What Pillow writes into a file of each format besides the image.
METADATA = {
    **{ending: {"exif": EXIF, "icc_profile": ICC, "xmp": XMP} for ending in ("jpg", "mpo", "webp", "avif")},
    "png": {"exif": EXIF, "icc_profile": ICC, "iTXt": b"XML:com.adobe.xmp\0\0\0\0\0" + XMP, "tEXt": b"a\0b"},
    "tiff": {"exif": EXIF, "icc_profile": ICC},
    **{ending: {"comment": b"a comment"} for ending in ("gif", "jp2")},
    **{ending: {} for ending in ("bmp", "dds", "ico", "pcx", "ppm", "qoi", "sgi", "tga")},
}


def mutated(rng, content):
    """``content`` with a few bytes overwritten, inserted, deleted or cut off."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(content) + 1)
        new = rng.choice((rng.randbytes(1), rng.randbytes(4), bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff"))
        content[at : at + rng.choice((0, len(new), len(new), len(new), 16))] = new
    return bytes(content[: len(content) if rng.random() < 0.9 else rng.randrange(len(content) + 1)])


def fuzzed(rng, ending, image, content):
    """A file with corrupted metadata in a sound container, or with anything corrupted."""
    metadata = {name: mutated(rng, data) if rng.random() < 0.5 else data for name, data in METADATA[ending].items()}
    if not metadata or ending in ("avif", "tiff") or rng.random() < 0.3:  # the first two take long, or check
        return mutated(rng, content)
    if ending == "png":
        info = metadata["pnginfo"] = PngImagePlugin.PngInfo()
        for name in ("iTXt", "tEXt"):
            info.add(name.encode(), metadata.pop(name))
    file = io.BytesIO()
    image.save(file, Image.registered_extensions()[f".{ending}"], **metadata)
    return file.getvalue()


@pytest.mark.parametrize("ending", METADATA)
def test_corrupted_metadata_give_an_image_or_a_clear_line(tmp_path, capfd, ending):
    """Thousands more were tried once, and in every other format that Pillow decodes: no warning, no other error."""
    rng = random.Random(ending)
    image = NOISY.convert("P") if ending == "gif" else NOISY
    if ending == "png":
        path = saved(tmp_path, image, "p.png", exif=EXIF, icc_profile=ICC)
    else:
        options = {"compression": "tiff_lzw", "exif": b""} if ending == "tiff" else {}
        path = saved(tmp_path, image, f"p.{ending}", **METADATA[ending] | options)
    contents = [path.read_bytes()]
    if ending == "tiff":
        contents.append(saved(tmp_path, image, "p.tiff", **METADATA[ending]).read_bytes())
    lines = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(100):
            path.write_bytes(fuzzed(rng, ending, image, rng.choice(contents)))
            try:
                assert image_file.read(path).shape == (3, 32, 32)
            except UserError as error:
                lines.append(str(error))
    assert 0 < len(lines) < 100
    assert all(line.startswith(f"{path} ") and "\n" not in line for line in lines)
    assert capfd.readouterr() == ("", "")


def test_a_kind_of_compression_that_pillow_does_not_know_is_a_clear_line(tmp_path):
    path = saved(tmp_path, plain("P", 0), "p.blp")
    content = bytearray(path.read_bytes())
    content[4] = 7
    path.write_bytes(content)
    assert refusal(path).startswith("cannot be read: Unknown BLP compression")


@pytest.mark.parametrize("most", [1023, 400])
def test_one_so_large_that_it_may_be_meant_to_fill_the_memory_is_refused(tmp_path, monkeypatch, most):
    """Pillow warns above so many pixels, and raises above twice as many."""
    path = saved(tmp_path, NOISY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    assert refusal(path) == f"has more than {most:,} pixels; make it smaller first"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1024)
    assert torch.equal(image_file.read(path), NOISE)
