import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import altair as alt
import numpy as np
import pytest
import torch
from jinja2 import UndefinedError
from PIL import Image

from cifar2.errors import UserError
from cifar2.report import page as report
from tests.conftest import random_split


def chart(name):
    return alt.Chart({"values": [{"name": name, "images": 3}]}).mark_bar().encode(alt.X("images:Q"), alt.Y("name:N"))


CHARTS = {"bars": chart("bird")}


def row(name, tied=False, tied_on_loss=False):
    """Of ``metrics/ranking.csv``."""
    return {"name": name, "tied": tied, "tied_on_loss": tied_on_loss}


def test_a_winner_by_accuracy_is_told_as_one():
    found = report.reason([row("fine", True, True), row("fast"), row("smooth")])
    assert found == "By it, fine has the best validation accuracy, and no other is within one standard error of it."


def test_a_winner_by_loss_is_told_as_one():
    found = report.reason([row("fine", True, True), row("fast", True), row("smooth", True), row("precise")])
    assert found == (
        "Within one standard error of the best validation accuracy are fine, fast and smooth; of these fine has the "
        "lowest loss on a bad epoch, and no other is within one standard error of that."
    )


def test_a_winner_by_the_gap_is_told_as_one():
    found = report.reason([row("fine", True, True), row("fast", True, True), row("smooth", True), row("precise")])
    assert found == (
        "Within one standard error of the best validation accuracy are fine, fast and smooth; near the lowest loss "
        "on a bad epoch among them are fine and fast, and of these fine has the smallest gap."
    )


def family(mean, margin):
    return {"subsets": [{"seeds_mean": mean, "seeds_ci95": [mean - margin, mean + margin]}]}


def test_a_step_is_the_gain_from_family_to_family_with_the_error_of_a_difference():
    first, second = report.steps(
        {"mlp": family(0.8, 1.96 * 0.03), "cnn": family(0.9, 1.96 * 0.04), "transfer": family(0.85, 0)}
    )
    assert (first.before, first.after, second.before, second.after) == ("mlp", "cnn", "cnn", "transfer")
    assert first.gain == pytest.approx(0.1)
    assert first.error == pytest.approx(math.hypot(0.03, 0.04))
    assert second.gain == pytest.approx(-0.05)
    assert second.error == pytest.approx(0.04)


@pytest.mark.parametrize(("gain", "is_signal"), [(0.0195, False), (0.0197, True), (-0.0195, False), (-0.0197, True)])
def test_a_gain_or_loss_of_more_than_1_96_standard_errors_is_a_signal(gain, is_signal):
    assert report.Step("mlp", "cnn", gain, 0.01).is_signal == is_signal


def test_one_family_alone_makes_no_step():
    assert report.steps({"mlp": family(0.8, 0.01)}) == []


def decoded(address):
    assert address.startswith("data:image/png;base64,")
    return base64.b64decode(address.partition(",")[2])


def test_thumbnails_hold_the_very_pixels():
    images = random_split(3, 0).images
    addresses = report.thumbnails(images)
    assert len(addresses) == 3
    for image, address in zip(images, addresses, strict=True):
        pixels = np.array(Image.open(io.BytesIO(decoded(address))))
        assert torch.equal(torch.from_numpy(pixels).permute(2, 0, 1), image)
    assert report.thumbnails(images[:0]) == []


def test_a_picture_is_its_file(tmp_path):
    content = b"the bytes of a file"
    (tmp_path / "a.png").write_bytes(content)
    assert decoded(report.picture(tmp_path / "a.png")) == content
    with pytest.raises(UserError, match="is missing; `dvc repro` makes it"):
        report.picture(tmp_path / "b.png")


@pytest.fixture
def template(tmp_path, monkeypatch):
    """A small page in place of the whole; write into it what it shall say."""
    path = tmp_path / "page.html"
    monkeypatch.setattr(report, "TEMPLATE", path)
    path.write_text(PAGE)
    return path


PAGE = '<p>{{ name }}</p><script id="vega">{{ vega }}</script><script id="specifications">{{ specifications }}</script>'


class Scripts(HTMLParser):
    """The scripts of a page by their id, as a browser tells where they end, and all its tags."""

    def __init__(self, page):
        super().__init__()
        self.found, self.tags, self.inside = {}, [], None
        self.feed(page.decode())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = dict(attributes).get("id") if tag == "script" else None
        self.found[self.inside] = ""

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, text):
        if self.inside:
            self.found[self.inside] += text


def test_a_page_has_its_facts_its_charts_and_what_draws_them(template):
    page = report.render({"name": "fine"}, CHARTS)
    assert b"<p>fine</p>" in page
    found = Scripts(page).found
    assert "vegaEmbed" in found["vega"]
    specification = json.loads(found["specifications"])["bars"]
    assert specification["encoding"] == CHARTS["bars"].to_dict()["encoding"]
    assert specification["config"]["background"] == "transparent"


def test_a_fact_that_is_missing_is_an_error_and_no_blank(template):
    with pytest.raises(UndefinedError, match="'name' is undefined"):
        report.render({}, CHARTS)
    template.write_text("{{ final.test_accuracy }}")
    with pytest.raises(UndefinedError, match="has no attribute 'test_accuracy'"):
        report.render({"final": {}}, CHARTS)


NAMES = ["</script><b>", "<!--<script>", "</SCRIPT >", "a<b & \"c\" 'd'"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_cannot_end_the_script_that_it_stands_in_or_be_a_tag(template, name):
    page = report.render({"name": name}, {"bars": chart(name)})
    found = Scripts(page)
    assert found.tags == ["p", "script", "script"]
    assert "<" not in found.found["specifications"]
    (rows,) = json.loads(found.found["specifications"])["bars"]["datasets"].values()
    assert [row["name"] for row in rows] == [name]


def test_the_library_cannot_end_its_own_script(template):
    found = Scripts(report.render({"name": "fine"}, CHARTS)).found
    assert not re.search(r"<!--|<script|</script", found["vega"], re.IGNORECASE)


def test_a_page_has_the_same_bytes_every_time(template):
    assert report.render({"name": "fine"}, CHARTS) == report.render({"name": "fine"}, CHARTS)


def test_a_chart_stays_as_it_was(template):
    before = CHARTS["bars"].to_dict()
    report.render({"name": "fine"}, CHARTS)
    assert CHARTS["bars"].to_dict() == before
    assert isinstance(CHARTS["bars"].config, alt.utils.schemapi.UndefinedType)


def test_a_step_up_to_the_end_of_the_scale_has_the_error_of_its_lower_side():
    cut_off = {"subsets": [{"seeds_mean": 0.9955, "seeds_ci95": [0.9955 - 1.96 * 0.006, 1.0]}]}
    (step,) = report.steps({"cnn": family(0.985, 1.96 * 0.003), "transfer": cut_off})
    assert step.error == pytest.approx(math.hypot(0.003, 0.006))
    assert not step.is_signal
