"""The documentation as a site, in a real browser."""

from pathlib import Path

import pytest

from tests.browser import NEEDED, PHONE, WIDE, Window, violations
from tests.clone import ROOT, run

pytestmark = NEEDED


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    run(ROOT, "make", "docs", f"SITE={folder}")
    return folder


def pages(site: Path) -> list[Path]:
    """All pages but the first, which leads to another at once."""
    return sorted({*site.rglob("*.html")} - {site / "index.html"})


def test_every_document_has_a_page(site):
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    expected = {path.relative_to(ROOT).with_suffix(".html") for path in documents if path.name != "SECURITY.md"}
    assert expected <= {path.relative_to(site) for path in pages(site)}


def test_every_code_file_that_a_page_links_has_its_page(site):
    text = (site / "source/cifar2/mynet.py.html").read_text()
    assert "backpropagation" in text
    assert 'href="source/cifar2/mynet.py.html"' in (site / "README.html").read_text()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_every_page_is_accessible_and_asks_no_other_machine(site, chromium, viewport, color_scheme):
    window = Window(chromium, viewport, color_scheme)
    found = {}
    for path in pages(site):
        page = window.visit(path)
        width = page.evaluate("document.documentElement.scrollWidth")
        found[str(path.relative_to(site))] = violations(page) + ["too wide"] * (width > viewport["width"])
    window.close()
    assert {name: problems for name, problems in found.items() if problems} == {}


def test_formulas_are_drawn_by_the_browser(site, chromium):
    window = Window(chromium, WIDE, "light")
    page = window.visit(site / "README.html")
    formulas = [formula.bounding_box() for formula in page.locator("math").all()]
    assert len(formulas) > 10
    assert all(box and box["width"] > 0 and box["height"] > 0 for box in formulas)
    assert "\\" not in "".join(page.locator("math").all_text_contents()), "LaTeX that is not understood"
    window.close()


def test_the_first_page_leads_to_the_readme(site, chromium):
    window = Window(chromium, WIDE, "light")
    page = window.visit(site / "index.html")
    page.wait_for_url("**/README.html")
    window.close()
