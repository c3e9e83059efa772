"""The report in a real browser: clicks, a phone, dark mode, paper, accessibility."""

import io
import re
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import NEEDED, PHONE, WIDE, violations, window

pytestmark = NEEDED
CHARTS = ["val_loss", "val_accuracy", "train_loss", "train_accuracy", "ranking", "roc", "calibration", "map"]


@pytest.fixture
def visit(reported, chromium):
    """Open the report in a new window; any warning, error or network request is a failure."""
    with ExitStack() as windows:

        def open_page(viewport=WIDE, color_scheme="light"):
            page = windows.enter_context(window(chromium, viewport, color_scheme))
            page.goto(Path("metrics/report.html").absolute().as_uri())
            for name in CHARTS:
                page.wait_for_selector(f"#chart-{name} svg")
            return page

        yield open_page


def test_every_chart_is_drawn_with_marks_and_axes(visit):
    page = visit()
    assert page.locator(".chart").count() == len(CHARTS)
    for name in CHARTS:
        chart = page.locator(f"#chart-{name}")
        assert chart.locator(".role-mark path, .role-mark line, .role-mark text").count() > 1, name
        assert chart.locator(".role-axis-title").count() >= 2, name
        assert not re.search("NaN|undefined|Infinity", chart.inner_html()), name


def test_a_screenshot_is_not_blank(visit, tmp_path):
    path = tmp_path / "report.png"
    visit().screenshot(path=path, full_page=True)
    pixels = np.array(Image.open(io.BytesIO(path.read_bytes())).convert("L"))
    assert pixels.shape[0] > 3 * WIDE["height"]
    # Nowhere is a whole screen of one colour.
    assert all(screen.std() > 5 for screen in np.array_split(pixels, 8))


def test_the_gallery_shows_the_chosen_images(visit):
    page = visit()
    of_all = [
        (item.get_attribute("data-class"), float(item.get_attribute("data-confidence")))
        for item in page.locator(".gallery li").all()
    ]

    def shown():
        n = page.locator(".gallery li:visible").count()
        assert page.locator("#shown").inner_text() == f"{n} shown"
        return n

    assert shown() == len(of_all)
    assert page.locator("#filter-confidence").get_attribute("min") == "50", "the lowest confidence of two classes"
    page.select_option("#filter-class", "bird")
    n_birds = sum(name == "bird" for name, _ in of_all)
    assert 0 < shown() == n_birds < len(of_all)
    # Between the lowest and the highest confidence of a bird.
    limit = round(50 * sum(f(c for name, c in of_all if name == "bird") for f in (min, max)))
    page.locator("#filter-confidence").fill(str(limit))
    assert page.locator("#shown-confidence").inner_text() == f"{limit}\u00a0%"
    assert 0 < shown() == sum(name == "bird" and 100 * c >= limit for name, c in of_all) < n_birds
    page.select_option("#filter-class", "")
    assert shown() == sum(100 * c >= limit for _, c in of_all)
    page.locator("#filter-confidence").fill("50")
    assert shown() == len(of_all)


def test_a_click_in_the_legend_fades_the_other_curves(visit):
    chart = visit().locator("#chart-val_loss")

    def faded():
        lines = chart.locator(".mark-line path").all()
        return [line.get_attribute("stroke-opacity") or line.get_attribute("opacity") for line in lines].count("0.1")

    n = chart.locator(".mark-line path").count()
    assert faded() == 0
    chart.locator(".role-legend-label text", has_text="smooth").click()
    assert faded() == n - 1


def test_a_point_of_the_map_shows_its_image(visit):
    page = visit()
    page.locator("#chart-map .role-mark path").last.hover()
    tooltip = page.locator("#vg-tooltip-element")
    tooltip.locator("img").wait_for()
    assert tooltip.locator("img").evaluate("async (image) => (await image.decode(), image.naturalWidth)") == 32
    assert re.search(r"class\s+(airplane|bird)\s+predicted", tooltip.inner_text())


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_page_is_accessible_and_does_not_overflow(visit, viewport, color_scheme):
    page = visit(viewport, color_scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert violations(page) == []


def test_the_dark_page_is_dark_and_legible(visit):
    def brightness(page, selector, name):
        red, green, blue = re.findall(r"[\d.]+", page.eval_on_selector(selector, f"e => getComputedStyle(e).{name}"))[
            :3
        ]
        return (int(red) + int(green) + int(blue)) / 3

    light, dark = visit(), visit(color_scheme="dark")
    text = "#chart-roc .role-axis-title text"
    assert brightness(light, "body", "backgroundColor") > 200 > 55 > brightness(light, text, "fill")
    assert brightness(dark, "body", "backgroundColor") < 55 < 200 < brightness(dark, text, "fill")
    cell = ".confusion td"
    assert brightness(dark, cell, "color") > 200 > 55 > brightness(light, cell, "color")


def test_paper_fits_everything_and_has_no_controls(visit):
    page = visit(color_scheme="dark")
    page.emulate_media(media="print")
    # As narrow as a sheet; charts are not redrawn for it.
    page.add_style_tag(content="body { width: 700px }")
    for name in CHARTS:
        assert page.locator(f"#chart-{name} svg").bounding_box()["width"] <= 700, name
    assert page.eval_on_selector("body", "e => getComputedStyle(e).backgroundColor") == "rgb(255, 255, 255)"
    for selector in ("nav", "#filter-class", "#filter-confidence"):
        assert not page.locator(selector).is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
