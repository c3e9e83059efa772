import base64
import io
import json
import re
from html.parser import HTMLParser

import altair as alt
import numpy as np
import pytest
import torch
from jinja2 import UndefinedError
from PIL import Image

from cifar2.mynet import MyNet
from cifar2.report import page as report
from tests.conftest import random_split


def chart(name):
    return alt.Chart({"values": [{"name": name, "images": 3}]}).mark_bar().encode(alt.X("images:Q"), alt.Y("name:N"))


CHARTS = {"bars": chart("bird")}


def row(name, tied=False, tied_on_loss=False):
    """A row of ``metrics/ranking.csv``."""
    return {"name": name, "tied": tied, "tied_on_loss": tied_on_loss, "fraction": 0.376}


TIED = "fine, fast and smooth are tied on validation accuracy. Of these, "


@pytest.mark.parametrize(
    ("fast", "smooth", "reason"),
    [
        ((), (), "fine has the best validation accuracy, and no other is tied with it."),
        ((True,), (True,), TIED + "fine has the lowest bad-epoch loss, and no other is tied with it."),
        (
            (True, True),
            (True,),
            TIED + "fine and fast are tied on the bad-epoch loss, and fine has the smallest gap.",
        ),
    ],
    ids=["accuracy", "loss", "gap"],
)
def test_a_selection_has_its_reason(fast, smooth, reason):
    rows = [row("fine", True, True), row("fast", *fast), row("smooth", *smooth), row("precise")]
    often = " On 38 % of 1,000 resamples of images and seeds it is selected too."
    assert report.reason(rows, 1000) == reason + often


def evaluated(*n_correct):
    """Two classes, the first of which is true: so many of 50 images are classified correctly by each seed."""
    correct = torch.stack([torch.arange(50) < n for n in n_correct]).double()
    return {"logits": torch.stack([correct, 1 - correct], 2), "labels": torch.zeros(50, dtype=torch.int64)}


def test_a_step_is_the_gain_on_the_same_images():
    first, second = report.steps({"mlp": evaluated(30, 31), "cnn": evaluated(45, 46), "transfer": evaluated(45, 45)})
    assert (first.before, first.after, second.before, second.after) == ("mlp", "cnn", "cnn", "transfer")
    assert first.gain.mean == pytest.approx(0.3)
    assert second.gain.mean == pytest.approx(-0.01)
    assert (first.is_significant, second.is_significant) == (True, False)


def test_one_family_makes_no_step():
    assert report.steps({"mlp": evaluated(30)}) == []


def test_layers_add_up_to_the_parameters():
    network = MyNet((12, 5, 3))
    assert report.layers(network) == [(1, 12, 5, 65), (2, 5, 3, 18)]
    assert sum(n for *_, n in report.layers(network)) == sum(p.numel() for p in network.parameters())


def test_thumbnails_hold_the_exact_pixels():
    images = random_split(3, 0).x
    urls = report.thumbnails(images)
    assert len(urls) == 3
    for image, url in zip(images, urls, strict=True):
        start, content = url.split(",")
        assert start == "data:image/png;base64"
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(content))))
        assert torch.equal(torch.from_numpy(pixels).permute(2, 0, 1), image)
    assert report.thumbnails(images[:0]) == []


@pytest.fixture
def template(tmp_path, monkeypatch):
    """A small template instead of the real one; tests may overwrite it."""
    path = tmp_path / "page.html"
    monkeypatch.setattr(report, "TEMPLATE", path)
    path.write_text(PAGE)
    return path


PAGE = '<p>{{ name }}</p><script id="vega">{{ vega }}</script><script id="specifications">{{ specifications }}</script>'


class Scripts(HTMLParser):
    """The scripts of a page by their id, divided as in a browser, and all its tags."""

    def __init__(self, page):
        super().__init__()
        self.scripts, self.tags, self.inside = {}, [], None
        self.feed(page.decode())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = dict(attributes).get("id") if tag == "script" else None
        self.scripts[self.inside] = ""

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, text):
        if self.inside:
            self.scripts[self.inside] += text


def test_a_page_contains_its_values_its_charts_and_vega(template):
    page = report.render({"name": "fine"}, CHARTS)
    assert b"<p>fine</p>" in page
    scripts = Scripts(page).scripts
    assert "vegaEmbed" in scripts["vega"]
    specification = json.loads(scripts["specifications"])["bars"]
    assert specification["encoding"] == CHARTS["bars"].to_dict()["encoding"]
    assert specification["config"]["background"] == "transparent"


def test_a_missing_value_is_an_error_and_not_a_blank(template):
    with pytest.raises(UndefinedError, match="'name' is undefined"):
        report.render({}, CHARTS)
    template.write_text("{{ final.test_accuracy }}")
    with pytest.raises(UndefinedError, match="has no attribute 'test_accuracy'"):
        report.render({"final": {}}, CHARTS)


NAMES = ["</script><b>", "<!--<script>", "</SCRIPT >", "a<b & \"c\" 'd'"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_cannot_end_its_script_or_be_a_tag(template, name):
    page = report.render({"name": name}, {"bars": chart(name)})
    parsed = Scripts(page)
    assert parsed.tags == ["p", "script", "script"]
    assert "<" not in parsed.scripts["specifications"]
    (rows,) = json.loads(parsed.scripts["specifications"])["bars"]["datasets"].values()
    assert [row["name"] for row in rows] == [name]


def test_vega_cannot_end_its_own_script(template):
    scripts = Scripts(report.render({"name": "fine"}, CHARTS)).scripts
    assert not re.search(r"<!--|<script|</script", scripts["vega"], re.IGNORECASE)


def test_rendering_does_not_change_a_chart(template):
    before = CHARTS["bars"].to_dict()
    report.render({"name": "fine"}, CHARTS)
    assert CHARTS["bars"].to_dict() == before
    assert isinstance(CHARTS["bars"].config, alt.utils.schemapi.UndefinedType)


@pytest.mark.parametrize("size", [32, 96])
def test_a_point_has_its_image_and_prediction(size):
    tensors = evaluated(30)
    images = random_split(50, 0).x.repeat_interleave(size // 32, 2).repeat_interleave(size // 32, 3)
    points = report.points(tensors, torch.arange(100).view(50, 2) / 7, images, ("airplane", "bird"), 10)
    assert len(points) == 10
    assert points[-1] | {"image": ""} == {
        "x": 14.0,
        "y": 14.143,
        "class": "airplane",
        "predicted": "bird",
        "confidence": 0.731,
        "image": "",
    }
    kind, _, data = points[0]["image"].partition(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (32, 32)
    assert len(data) < 1500
