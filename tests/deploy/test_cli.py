import json
import os
import re
import sys
import tomllib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from pkgutil import resolve_name
from threading import Thread

import pytest
import safetensors.torch
import torch
from PIL import Image

from cifar2 import files, params
from cifar2.dataset import splits
from cifar2.dataset.cifar10 import CLASSES
from cifar2.deploy import cli
from cifar2.networks import classifier, inference
from tests.conftest import N_FEATURES, ROOT, random_split
from tests.networks.test_classifier import CARD

IMAGES = random_split(3, 0).x
NAMES = ["one.png", "two.png", "three.png"]
FEATURES = params.Features(backbone="efficientnet_lite0", image_size=32, flip_average=True)
CNN = {"model": "cnn", "family": "cnn", "channels": [4, 8], "dropout": 0.5, "flip_average": True}
CARDS = {
    "mlp": CARD,
    "flipped": CARD.model_copy(update={"configuration": params.changed(CARD.configuration, CNN), "n_l": ()}),
    "features": CARD.model_copy(update={"n_l": (N_FEATURES, 2), "features": FEATURES}),
    "ten": CARD.model_copy(update={"n_l": (3072, 4, 10), "classes": CLASSES}),
}


@pytest.fixture
def predict(monkeypatch, capsys):
    """Run ``cifar2 predict ARGUMENTS``; returns the exit code, and the lines on stdout and on stderr."""

    def run(*arguments, stdout=None):
        code = 0
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["cifar2", "predict", *map(str, arguments)])
            if stdout:
                patch.setattr(sys, "stdout", stdout)
            try:
                cli.main()
            except SystemExit as stop:
                code = stop.code
        out, err = capsys.readouterr()
        if isinstance(code, str):  # which is exit code 1 and that text on stderr
            code, err = 1, err + code
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with three images, in place of the project's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "PROJECT", tmp_path)
    for name, image in zip(NAMES, IMAGES, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(name)
    return tmp_path


def saved(kind, path=cli.FINAL, seeds=(0,)):
    """Save networks with different predictions for each image; returns their probabilities for the images."""
    card, networks = CARDS[kind], {}
    for seed in seeds:
        network = classifier.build(card, seed)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(3)
        networks[f"seed{seed}"] = network.eval()
    classifier.save(path, card, networks, {})
    x = inference.inputs(card, IMAGES)
    flip_average = card.configuration.flip_average
    return torch.stack([inference.probabilities(network, x, flip_average) for network in networks.values()])


def test_the_installed_command_is_main():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert resolve_name(scripts["cifar2"]) is cli.main


@pytest.mark.parametrize("kind", CARDS)
def test_an_image_has_the_final_models_most_probable_class(folder, predict, kind):
    p, classes = saved(kind)[0], CARDS[kind].classes
    code, out, err = predict(*NAMES)
    assert (code, err) == (0, [])
    expected = [(classes[row.argmax()], f"{row.max():.2%}", name) for row, name in zip(p, NAMES, strict=True)]
    assert [tuple(line.split()) for line in out] == expected
    code, out, err = predict("--json", *NAMES)
    assert (code, err) == (0, [])
    for prediction, row, (name, _, image) in zip(json.loads("\n".join(out)), p, expected, strict=True):
        assert (prediction["image"], prediction["class"]) == (image, name)
        assert prediction["probabilities"] == pytest.approx(dict(zip(classes, row.tolist(), strict=True)), rel=1e-5)
        assert prediction["probability"] == max(prediction["probabilities"].values())


def test_an_images_prediction_does_not_depend_on_the_others(folder, predict):
    saved("flipped")
    _, alone, _ = predict(NAMES[1])
    _, among, _ = predict(NAMES[2], NAMES[1], NAMES[0], NAMES[1])
    assert alone == [among[1]] == [among[3]]
    assert [line.split()[-1] for line in among] == [NAMES[2], NAMES[1], NAMES[0], NAMES[1]]


def test_predictions_are_aligned(folder, predict):
    saved("ten")
    _, out, _ = predict(*NAMES)
    assert {line.index("%") for line in out} == {len("automobile") + 2 + len("100.00")}


def test_several_models_in_a_file_are_averaged(folder, predict):
    p = saved("mlp", folder / "mlp.safetensors", seeds=(0, 1, 2))
    assert p.std(0).min() > 0.01
    _, out, _ = predict("--json", "--model", "mlp.safetensors", *NAMES)
    probabilities = [list(prediction["probabilities"].values()) for prediction in json.loads("\n".join(out))]
    torch.testing.assert_close(torch.tensor(probabilities, dtype=torch.float64), p.mean(0))


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_unreadable_image_is_named_and_others_are_predicted(folder, predict, options):
    saved("mlp")
    _, expected, _ = predict(*options, NAMES[0], NAMES[2])
    (folder / "text.png").write_text("not an image")
    long = 300 * "a"
    code, out, err = predict(*options, NAMES[0], "nothing.png", NAMES[2], "text.png", long)
    assert (code, out) == (1, expected)
    assert err == [
        "error: nothing.png cannot be read: No such file or directory",
        "error: text.png is not an image that Pillow decodes; if it is one in another format (HEIC, SVG, EPS, raw), "
        "convert it to JPEG or PNG first",
        f"error: {long} cannot be read: File name too long",
    ]


@pytest.mark.parametrize(("options", "expected"), [((), []), (("--json",), ["[]"])])
def test_without_a_readable_image_nothing_is_predicted(folder, predict, options, expected):
    saved("features")
    code, out, err = predict(*options, "nothing.png", "data")
    assert (code, out) == (1, expected)
    assert err == [
        "error: data has no files named like images that Pillow decodes; folders in it are not searched",
        "error: nothing.png cannot be read: No such file or directory",
    ]


def test_a_folder_stands_for_its_image_files_by_name(folder, predict):
    saved("mlp")
    _, expected, _ = predict("one.png", "three.png", "two.png")
    Image.open("one.png").save(".hidden.png")
    Image.open("one.png").save("data/deeper.png")
    code, out, err = predict(folder)
    assert (code, err) == (0, [])
    assert out == [line.replace("%  ", f"%  {folder}/") for line in expected]
    assert predict(".") == (0, expected, [])


def test_a_folders_other_files_are_reported(folder, predict):
    saved("mlp")
    (folder / "two.png").rename(folder / "TWO.PNG")
    for name in ("IMG_1.heic", "notes.txt", "LICENSE", "b.txt"):
        (folder / name).write_text("no image")
    (folder / "broken.jpg").write_text("no image")
    code, out, err = predict("--json", ".")
    assert code == 1
    assert [p["image"] for p in json.loads("\n".join(out))] == ["TWO.PNG", "one.png", "three.png"]
    assert err[0] == "skipped in .: 4 not named like images that Pillow decodes (.heic, .txt, LICENSE)"
    assert err[1].startswith("error: broken.jpg is not an image that Pillow decodes")


def test_an_image_is_read_from_standard_input(folder, predict, standard_input):
    saved("mlp")
    (one,) = predict("one.png")[1]
    standard_input(folder / "one.png")
    assert predict("-") == (0, [one.replace("one.png", "-")], [])


@pytest.mark.parametrize("options", [(), ("--model", "s3://bucket/m.safetensors")])
def test_a_url_is_reported_as_typed(folder, predict, options):
    saved("mlp")
    url = options[-1] if options else "https://example.com/a.png"
    code, out, err = predict(*options, "https://example.com/a.png")
    assert (code, out, err) == (1, [], [f"error: {url} is a URL; download it and name the file"])


# An escape sequence, a byte that is not UTF-8, a line break, and the spaces of a macOS screenshot, which are shown.
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"\x1b[31mred.png", r"\x1b[31mred.png"),
        (b"\xff.png", r"\udcff.png"),
        (b"a\nb.png", r"a\nb.png"),
        ("9\u202fAM \u00fc.png".encode(), "9\u202fAM \u00fc.png"),
    ],
)
def test_a_name_that_a_terminal_cannot_show_is_escaped(folder, predict, name, shown):
    saved("mlp")
    (folder / "one.png").rename(os.fsdecode(name))
    code, out, err = predict(os.fsdecode(name), os.fsdecode(name + b"x"))
    assert code == 1
    assert [line.partition("%  ")[2] for line in out] == [shown]
    assert err == [f"error: {shown}x cannot be read: No such file or directory"]
    _, out, _ = predict("--json", os.fsdecode(name))
    assert os.fsencode(json.loads("\n".join(out))[0]["image"]) == name


def test_a_name_outside_the_terminals_encoding_is_escaped(folder, predict):
    saved("mlp")
    (folder / "one.png").rename("\u00fc.png")
    with Path("out").open("w", encoding="ascii") as stdout:
        assert predict("\u00fc.png", stdout=stdout)[0] == 0
    assert (folder / "out").read_text().endswith(r"%  \xfc.png" + "\n")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_closed_pipe_is_not_an_error(folder, predict, options):
    """As in `| head`; nothing is left that Python would report at exit."""
    saved("mlp")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        assert predict(*options, *NAMES, stdout=stdout) == (0, [], [])


def test_a_full_disk_is_one_line(folder, predict):
    saved("mlp")
    with Path("/dev/full").open("w") as stdout:
        assert predict(*NAMES, stdout=stdout) == (1, [], ["error: the system: No space left on device"])


def test_the_final_model_is_found_from_any_folder(folder, predict, monkeypatch):
    saved("mlp")
    _, expected, _ = predict(*NAMES)
    (folder / "photos").mkdir()
    monkeypatch.chdir("photos")
    code, out, err = predict(*(f"../{name}" for name in NAMES))
    assert (code, err) == (0, [])
    assert out == [line.replace("%  ", "%  ../") for line in expected]


def test_a_missing_model_is_one_line(folder, predict, monkeypatch):
    line = "error: data/models/final.safetensors is missing; `dvc repro` makes it, `dvc pull` fetches it"
    assert predict(NAMES[0]) == (1, [], [line])
    (folder / "photos").mkdir()
    (folder / "params.yaml").touch()
    monkeypatch.chdir("photos")
    line = (
        f"error: {folder}/data/models/final.safetensors is missing; `dvc repro` in {folder} makes it, "
        "`dvc pull` fetches it; --model names another one"
    )
    assert predict(NAMES[0]) == (1, [], [line])


def test_a_command_without_its_project_asks_for_a_model(folder, predict, monkeypatch):
    (folder / "photos").mkdir()
    monkeypatch.chdir("photos")
    line = "error: no model here, as cifar2 is installed without its project; name one with --model"
    assert predict(f"../{NAMES[0]}") == (1, [], [line])


@pytest.fixture
def address(folder, monkeypatch):
    """The address of ``folder``, which is served until the test ends, with an empty cache of downloads."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder / "cache"))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_model_is_downloaded_once(folder, predict, address):
    saved("mlp", folder / "final.safetensors")
    expected = predict("--model", "final.safetensors", *NAMES)
    for _ in range(2):
        assert predict("--model", f"{address}/final.safetensors", *NAMES) == expected
        (folder / "final.safetensors").unlink(missing_ok=True)


def test_what_is_no_model_is_not_kept(folder, predict, address):
    url = f"{address}/one.png"
    assert predict("--model", url, *NAMES) == (1, [], [f"error: {url} is not a model of this pipeline"])
    url = f"{address}/none.safetensors"
    line = f"error: {url} cannot be downloaded (HTTP Error 404: File not found)"
    assert predict("--model", url, *NAMES) == (1, [], [line])
    assert not (folder / "cache").exists()


def test_another_kind_of_file_is_named_as_such(folder, predict):
    splits.save(folder / "val.safetensors", random_split(3, 0))
    files.write_tensors(folder / "check.safetensors", {"step": torch.ones(1)}, {"epoch": 3})
    safetensors.torch.save_file({"w": torch.ones(1)}, folder / "bert.safetensors")
    classifier.save(folder / "fine.safetensors", CARD, {}, {})
    (folder / "one.safetensors").write_bytes((folder / NAMES[0]).read_bytes())
    (folder / "final.onnx").touch()
    (folder / "d.safetensors").mkdir()
    lines = {
        "val.safetensors": "is not a model, but holds images, index, labels; the models are in data/models/$",
        "check.safetensors": "is not a model, but holds step; the models are in data/models/$",
        "bert.safetensors": "is not a model of this pipeline, but of another program$",
        "fine.safetensors": "holds no model: training fine diverged$",
        "one.safetensors": "is corrupted",
        "one.png": "is not a model of this pipeline: those in data/models/ end with ",
        "final.onnx": "is for other programs; name the .safetensors file of the same model$",
        "d.safetensors": "is a folder; name a .safetensors file in it$",
    }
    for name, line in lines.items():
        code, out, (err,) = predict("--model", name, NAMES[0])
        assert (code, out) == (1, [])
        assert re.match(f"error: {name} {line}", err)


def test_without_an_image_the_usage_is_printed(folder, predict):
    code, out, err = predict()
    assert (code, out) == (2, [])
    assert err[0].startswith("usage: cifar2 predict")
