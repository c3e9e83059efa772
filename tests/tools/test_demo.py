import dataclasses
import functools
import html
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from PIL import Image

from cifar2 import files
from cifar2.dataset import splits
from cifar2.dataset.cifar10 import CLASSES
from cifar2.deploy import cli
from cifar2.errors import UserError
from cifar2.networks import classifier
from tests.browser import NEEDED, PHONE, WIDE, violations, window
from tests.clone import variables
from tests.conftest import EVALUATED, MODELS, ROOT, random_split
from tools import demo

IMAGES = random_split(3, 0).x
# Gradio's client warns at each upload, as it does not implement closing the connection that reports the progress.
KNOWN = ["Method not implemented."]


def in_browser(test):
    for mark in NEEDED:
        test = mark(test)
    return test


@pytest.fixture(autouse=True)
def nothing_loaded():
    demo.load.cache_clear()


def save(path, image):
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


def test_evaluated_models_are_listed_the_final_one_first(evaluated):
    listed = demo.evaluated()
    assert listed[0] == demo.FINAL
    assert sorted(map(str, listed)) == sorted(MODELS.values())


def test_listed_model_is_the_one_that_was_evaluated(project):
    for name in ("train/cnn", "train/transfer", "transfer", "train/fine"):
        files.write(Path(f"data/models/{name}.safetensors"), b"")
    files.write(Path("extended/data/models/cnn.safetensors"), b"")
    for path in ("metrics/evaluate/transfer.json", "extended/metrics/evaluate/cnn.json"):
        files.write(Path(path), b"")
    assert list(map(str, demo.evaluated())) == [
        "data/models/transfer.safetensors",
        "extended/data/models/cnn.safetensors",
    ]


def test_statement_is_of_the_most_similar_confidences():
    confidences = torch.linspace(0.505, 0.995, 491, dtype=torch.float64)
    # Every other prediction below 0.6 is correct, and every one above.
    correct = (torch.arange(491) % 2 == 0) | (confidences > 0.6)
    assert demo.statement(confidences, correct, 0.51) == (
        "Of the 100 test images with the most similar confidence (50.5 to 60.4 %), 52.0 % were classified correctly "
        "(95 % interval 42.3 to 61.5 %)."
    )
    assert "(89.6 to 99.5 %), 100.0 % were" in demo.statement(confidences, correct, 1)
    assert demo.statement(confidences[:3], correct[:3], 0.9).startswith("Of the 3 test images ")


def test_nearest_features_have_the_largest_cosine_similarity():
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    unit = features / features.norm(dim=1, keepdim=True)
    similarities, indices = demo.nearest(unit, 3 * features[7])
    expected = torch.nn.functional.cosine_similarity(features, features[7:8]).sort(descending=True)
    torch.testing.assert_close(similarities, expected.values[:6])
    assert torch.equal(indices, expected.indices[:6])
    assert len(demo.nearest(unit[:2], features[0])[0]) == 2


@pytest.mark.parametrize(("classes", "n"), [(("a", "b"), 4), (CLASSES, 10), (tuple(map(str, range(14))), 10)])
def test_examples_are_the_first_test_images_of_each_class(project, classes, n):
    test = random_split(300, 0, classes)
    splits.save(Path("data/prepared/test.safetensors"), test)
    paths = demo.save_examples(Path())
    assert paths == [f"{name}{i}.png" for i in (1, 2) for name in classes][:n]
    for path in paths:
        image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        label = classes.index(path[:-5])
        assert torch.equal(image, test.x[test.labels == label][int(path[-5]) - 1])


def test_a_class_of_one_image_has_one_example(project):
    test = random_split(40, 0)
    kept = torch.cat([(test.labels == 0).nonzero().flatten(), (test.labels == 1).nonzero().flatten()[:1]])
    alone = dataclasses.replace(test, x=test.x[kept], labels=test.labels[kept], index=test.index[kept])
    splits.save(Path("data/prepared/test.safetensors"), alone)
    assert demo.save_examples(Path()) == ["airplane1.png", "bird1.png", "airplane2.png"]


@pytest.mark.parametrize("name", EVALUATED)
def test_every_evaluated_model_explains_its_prediction(evaluated, name):
    test = splits.load(Path("data/prepared/test.safetensors"))
    save("image.png", test.x[0])
    probabilities, page = demo.explain("image.png", MODELS[name])
    assert list(probabilities) == ["airplane", "bird"]
    assert sum(probabilities.values()) == pytest.approx(1)
    model = demo.load(Path(MODELS[name]))
    if not model.card.features:  # those of the test project are random
        logits = files.read_tensors(Path(f"data/evaluated/{name}.safetensors"))[0]["logits"][0, 0]
        assert [*probabilities.values()] == pytest.approx(logits.double().softmax(0).tolist(), abs=1e-5)
    assert html.escape(demo.statement(model.confidences, model.correct, max(probabilities.values()))) in page
    predicted = max(probabilities, key=probabilities.get)
    assert f"lowers the log-odds of {predicted}," in page
    captions = re.findall("<figcaption>(.*?)</figcaption>", page)
    assert captions[:2] == ["the image as the model gets it, 32 x 32 pixels", f"occlusion map for {predicted}"]
    assert len(captions) == page.count("<img src='data:image/png;base64,") == 8
    assert all(re.fullmatch(r"(airplane|bird), -?[01]\.\d\d", caption) for caption in captions[2:])


def test_training_image_is_its_own_nearest_neighbour(evaluated):
    train = splits.load(Path("data/prepared/train.safetensors"))
    save("image.png", train.x[5])
    _, page = demo.explain("image.png", MODELS["mlp"])
    assert f"<figcaption>{train.classes[int(train.labels[5])]}, 1.00</figcaption>" in page


def test_network_with_convolutions_sees_some_training_images(evaluated, monkeypatch):
    monkeypatch.setattr(demo, "SEARCHED", 7)
    train = splits.load(Path("data/prepared/train.safetensors"))
    for name, n in (("cnn", 7), ("mlp", 60), ("transfer", 60)):
        model = demo.load(Path(MODELS[name]))
        assert len(model.features) == len(model.images) == len(model.labels) == n, name
    cnn = demo.load(Path(MODELS["cnn"]))
    assert torch.equal(cnn.images[[0, -1]], train.x[[0, -1]]), "evenly spaced"


def test_features_that_do_not_fit_the_model_are_one_line(evaluated):
    path = Path("data/features/train.safetensors")
    split = splits.load(path)
    splits.save(path, replace(split, features=split.features.model_copy(update={"image_size": 64})))
    save("image.png", IMAGES[0])
    probabilities, page = demo.explain("image.png", MODELS["transfer"])
    assert probabilities is None
    assert f"error: {path} has other features than {MODELS['transfer']} was trained on; run `dvc repro`" in page


@pytest.mark.parametrize("content", [b"", b"no image", b"GIF89a"])
def test_refused_file_gets_the_line_of_predict(evaluated, capsys, monkeypatch, content):
    Path("upload").mkdir()
    Path("upload/a&b.png").write_bytes(content)
    probabilities, page = demo.explain("upload/a&b.png", MODELS["mlp"])
    assert probabilities is None
    monkeypatch.chdir("upload")
    with pytest.raises(SystemExit):
        cli.predict(["a&b.png"], "../data/models/mlp.safetensors", as_json=False)
    assert page == f'<p role="alert">{html.escape(capsys.readouterr().err.strip())}</p>'


def test_without_an_image_nothing_is_shown(evaluated):
    assert demo.explain(None, MODELS["mlp"]) == (None, "")


def test_names_of_classes_are_escaped(evaluated):
    path = Path(MODELS["mlp"])
    card, networks, accuracies = classifier.load(path)
    classifier.save(path, card.model_copy(update={"classes": ("<b>", "a&b")}), networks, accuracies)
    save("image.png", IMAGES[0])
    probabilities, page = demo.explain("image.png", str(path))
    assert list(probabilities) == ["<b>", "a&b"]
    assert "<b>" not in page
    assert not re.search("a&b", page)


def test_missing_model_is_one_line(project, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["demo"])
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(demo, "save_examples", pytest.fail)
    with pytest.raises(UserError, match=r"data/models/final.safetensors is missing; `dvc repro` makes it, `dvc pull` "):
        demo.main()


@pytest.mark.slow
def test_page_ends_after_the_last_computation(evaluated, monkeypatch):
    from gradio import Blocks  # a slow import

    started, done = Event(), []

    def explain(*_):
        started.set()
        time.sleep(0.5)
        done.append("computed")

    def block_thread(blocks):
        (show,) = (function.fn for function in blocks.fns.values() if function.name == "show")
        Thread(target=show, args=(None, "")).start()
        started.wait(60)

    monkeypatch.setattr(sys, "argv", ["demo"])
    monkeypatch.setattr(os, "environ", {**os.environ})
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(demo, "COMPUTING", Lock())
    monkeypatch.setattr(demo, "explain", explain)
    monkeypatch.setattr(Blocks, "launch", lambda *_, **__: (None, "", None))
    monkeypatch.setattr(Blocks, "block_thread", block_thread)
    demo.main()
    done.append("ended")
    assert done == ["computed", "ended"]


@pytest.fixture
def demos(evaluated, tmp_path_factory):
    """Start demos as a user does; returns the address that each prints. They end with the test."""
    folder, processes = tmp_path_factory.mktemp("tmp"), []

    def start(**environment):
        every = variables() | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)} | environment
        command = [sys.executable, "-m", "tools.demo"]
        process = subprocess.Popen(command, cwd=evaluated.folder, env=every, stdout=-1, stderr=-1, text=True)
        processes.append(process)
        line = process.stdout.readline()
        assert re.fullmatch(r"open http://127\.0\.0\.1:\d+/ in a browser .*\n", line), line or process.stderr.read()
        return line.split()[1]

    yield start
    for process in processes:
        process.terminate()
        _, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, "")
    assert not list(folder.iterdir()), "the images are deleted"


@pytest.fixture
def visit(demos, chromium):
    """Open the page in a new window; any warning, error or request to another machine is a failure."""
    with ExitStack() as windows:

        def open_page(address, viewport=WIDE, color_scheme="light"):
            page = windows.enter_context(window(chromium, viewport, color_scheme, address, KNOWN))
            page.goto(address)
            page.wait_for_selector("#explanation .neighbours img")
            return page

        yield open_page


def upload(page, path):
    page.set_input_files("#image input[type=file]", path)


def wait_for(page, image, model):
    """Wait until the page shows what it should about an image."""
    probabilities, text = demo.explain(image, MODELS[model])
    seen, map_ = re.findall("<img src='(.*?)'", text)[:2]
    page.wait_for_selector(f'.maps:has(img[src="{seen}"]):has(img[src="{map_}"])')
    predicted = max(probabilities, key=probabilities.get)
    of = demo.load(Path(MODELS[model]))
    assert demo.statement(of.confidences, of.correct, probabilities[predicted]) in page.inner_text("#explanation")
    page.wait_for_selector(f"[data-testid=label-output-value]:text-is('{predicted}')")
    assert page.locator(".maps img").count() == 2
    assert page.locator(".neighbours img").count() == 6
    assert page.locator("#explanation img").evaluate_all("all => all.every((image) => image.naturalWidth === 32)")


@in_browser
def test_page_explains_uploads_and_refuses_what_predict_refuses(evaluated, demos, visit):
    test = splits.load(Path("data/prepared/test.safetensors"))
    page = visit(demos())
    shows = functools.partial(wait_for, page)
    save("first.png", test.x[test.labels == 0][0])  # the first example, shown from the start
    shows("first.png", "final")
    # Pillow reads 16 bits and other formats; Gradio would convert them.
    Image.fromarray(test.x[1].permute(1, 2, 0).numpy()).save("upload.tiff")
    upload(page, "upload.tiff")
    shows("upload.tiff", "final")
    Path("notes.png").write_text("no image")
    upload(page, "notes.png")
    alert = page.locator("#explanation [role=alert]")
    alert.wait_for()
    expected = html.unescape(re.sub("<.*?>", "", demo.explain("notes.png", MODELS["final"])[1]))
    assert alert.inner_text() == expected
    assert page.locator("#explanation img").count() == 0
    save("second.png", test.x[2])
    upload(page, "second.png")
    shows("second.png", "final")
    page.get_by_role("button", name="bird2").click()
    save("bird.png", test.x[test.labels == 1][1])
    shows("bird.png", "final")
    page.get_by_label("Model").click()
    page.get_by_role("option", name=re.compile(r"^mlp \(")).click()
    shows("bird.png", "mlp")


@in_browser
def test_pasted_image_is_explained(evaluated, demos, visit):
    page = visit(demos())
    save("pasted.png", splits.load(Path("data/prepared/test.safetensors")).x[3])
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (bytes) => {
          const image = new Blob([new Uint8Array(bytes)], { type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": image })]);
        }""",
        list(Path("pasted.png").read_bytes()),
    )
    page.get_by_role("button", name="Paste from clipboard").click()
    wait_for(page, "pasted.png", "final")


@in_browser
def test_last_of_several_quick_choices_is_explained(evaluated, demos, visit):
    test = splits.load(Path("data/prepared/test.safetensors"))
    page = visit(demos())
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    # Longer than a click, in milliseconds: the next one comes before the answer to the last.
    slow = {"offline": False, "latency": 500, "downloadThroughput": -1, "uploadThroughput": -1}
    network.send("Network.emulateNetworkConditions", slow)
    for name in ("bird2", "airplane2", "bird1"):
        page.get_by_role("button", name=name).click()
    save("bird.png", test.x[test.labels == 1][0])
    wait_for(page, "bird.png", "final")


@in_browser
def test_page_is_accessible_and_does_not_overflow(demos, visit):
    address = demos()
    for viewport in (WIDE, PHONE):
        for color_scheme in ("light", "dark"):
            page = visit(address, viewport, color_scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            assert violations(page) == []
            colour = page.eval_on_selector("body", "e => getComputedStyle(e).backgroundColor")
            assert (int(re.findall(r"\d+", colour)[0]) > 200) == (color_scheme == "light")
    Path("notes.png").write_text("no image")
    upload(page, "notes.png")
    page.wait_for_selector("#explanation [role=alert]")
    assert violations(page) == []


@pytest.fixture
def proxy():
    """The address of a proxy that refuses what it is asked for, and the list of that."""
    asked = []

    class Refusing(BaseHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.requestline)

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@in_browser
def test_nothing_is_sent_to_other_machines(proxy, demos, visit):
    url, asked = proxy
    address = demos(HTTP_PROXY=url, HTTPS_PROXY=url, ALL_PROXY=url)
    policy = visit(address).request.get(address).headers["content-security-policy"]
    assert "default-src 'self';" in policy
    assert not re.search(r"http|\*", policy)
    assert not asked


@pytest.mark.slow
def test_second_demo_has_an_address_of_its_own(demos):
    first, second = demos(), demos()
    assert first != second
    for address in (first, second):
        with urlopen(address) as response:
            assert b"CIFAR-2" in response.read()
