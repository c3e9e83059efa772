import struct
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from cifar2 import pictures
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
    return pictures.read(saved(tmp_path, image, name, **options))


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


@pytest.mark.parametrize("orientation", TURNED)
def test_it_is_turned_as_its_exif_data_says(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = TURNED[orientation]
    stored = NOISY if turn is None else NOISY.transpose(turn)
    assert torch.equal(read(tmp_path, stored, exif=exif), NOISE)


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


@pytest.mark.parametrize("name", ["p.png", "p.tiff"])
@pytest.mark.parametrize("value", [0, 255, 20_000, 65_535])
def test_grey_values_of_16_bits_keep_their_upper_half(tmp_path, name, value):
    image = Image.fromarray(np.full((40, 40), value, np.uint16))
    assert is_all(read(tmp_path, image, name), (value // 256,) * 3)


@pytest.mark.parametrize("name", ["p.gif", "p.webp", "p.png", "p.tiff"])
def test_of_an_animation_it_is_the_first_picture(tmp_path, name):
    found = read(tmp_path, plain("RGB", RED), name, save_all=True, append_images=[plain("RGB", GREEN)])
    assert is_all(found, RED, tolerance=4)


def refusal(path):
    """What is said of a file that cannot be read: one line that names it."""
    with pytest.raises(UserError) as error:
        pictures.read(path)
    message = str(error.value)
    assert message.startswith(f"{path} ")
    assert "\n" not in message
    return message.removeprefix(f"{path} ")


def test_a_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "nothing.png") == "cannot be read: No such file or directory"


def test_a_folder_is_named(tmp_path):
    assert refusal(tmp_path) == "cannot be read: Is a directory"


@pytest.mark.parametrize("content", [b"", b"a text\n", b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_a_file_that_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert refusal(tmp_path / "a.png") == "is not a picture in any format that Pillow reads"


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
                assert pictures.read(path).shape == (3, 32, 32)
            except UserError as error:
                lines.append(str(error))
    assert not warned
    assert len(lines) >= 10
    assert all(line.startswith(f"{path} ") and "\n" not in line for line in lines)


@pytest.mark.parametrize("error", [SyntaxError, ValueError, RuntimeError, NotImplementedError, EOFError, struct.error])
def test_whatever_pillow_raises_for_a_damaged_file_is_a_clear_line(tmp_path, monkeypatch, error):
    def load(_):
        raise error("of no use")

    path = saved(tmp_path, NOISY)
    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert refusal(path) == "cannot be read: of no use"


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
    assert torch.equal(pictures.read(path), NOISE)
