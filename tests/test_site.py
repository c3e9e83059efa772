"""The documentation as a site, in a real browser."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.browser import NEEDED, PHONE, WIDE, violations, window
from tests.clone import ROOT, installed, run

pytestmark = NEEDED
REPORT = "<!doctype html><html lang=en><title>Report</title><main><h1>Results</h1></main>"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The documentation and a report; ``tests.report`` tests a real one."""
    project = installed(tmp_path_factory.mktemp("site"))
    (project / "metrics/report.html").write_text(REPORT)
    run(project, "make", "site")
    return project / "site"


def pages(site: Path) -> list[Path]:
    """All pages but the first, which leads to another at once."""
    return sorted({*site.rglob("*.html")} - {site / "index.html"})


def test_every_document_has_a_page(site):
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    expected = {path.relative_to(ROOT).with_suffix(".html") for path in documents if path.name != "SECURITY.md"}
    assert expected <= {path.relative_to(site) for path in pages(site)}


def test_every_link_within_the_site_leads_to_a_file(site):
    links = {
        (path.parent / unquote(target)).resolve()
        for path in pages(site)
        for target in re.findall(r'href="(?!https?:)([^"#?]+)', path.read_text())
    }
    assert site / "source/cifar2/mynet.py.html" in links
    assert "mathematics.ipynb" in {path.name for path in links}, "a download"
    assert sorted(path for path in links if not path.exists()) == []


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_every_page_is_accessible_and_asks_no_other_machine(site, chromium, viewport, color_scheme):
    found = {}
    with window(chromium, viewport, color_scheme) as page:
        for path in pages(site):
            page.goto(path.as_uri())
            width = page.evaluate("document.documentElement.scrollWidth")
            found[str(path.relative_to(site))] = violations(page) + ["too wide"] * (width > viewport["width"])
    assert {name: problems for name, problems in found.items() if problems} == {}


@pytest.mark.parametrize("name", ["README.html", "docs/mathematics.html"])
def test_formulas_are_drawn_by_the_browser(site, chromium, name):
    with window(chromium) as page:
        page.goto((site / name).as_uri())
        formulas = [formula.bounding_box() for formula in page.locator("math").all()]
        text = "".join(page.locator("math").all_text_contents())
    assert len(formulas) > 10
    assert all(box and box["width"] > 0 and box["height"] > 0 for box in formulas)
    assert not {"\\", "&"} & {*text}, "LaTeX that is not understood"


def test_the_first_page_leads_to_the_readme(site, chromium):
    with window(chromium) as page:
        page.goto((site / "index.html").as_uri())
        page.wait_for_url("**/README.html")


def test_the_side_bar_leads_to_the_report(site, chromium):
    with window(chromium) as page:
        for path in ("README.html", "docs/gallery.html", "source/cifar2/mynet.py.html"):
            page.goto((site / path).as_uri())
            page.get_by_role("link", name="Report of all results").click()
            page.wait_for_url("**/report.html")
            assert page.get_by_role("heading").all_inner_texts() == ["Results"]


def test_the_gallery_shows_every_committed_figure(site, chromium):
    committed = run(ROOT, "git", "ls-files", "metrics/figures", "extended/metrics/figures").stdout.splitlines()
    with window(chromium, PHONE) as page:
        page.goto((site / "docs/gallery.html").as_uri())
        images = page.locator("article img").all()
        widths = [image.evaluate("image => image.decode().then(() => image.naturalWidth)") for image in images]
        shown = [unquote(urlsplit(image.evaluate("image => image.src")).path) for image in images]
    assert all(widths)
    assert {Path(path).read_bytes() for path in shown} == {(ROOT / path).read_bytes() for path in committed}


def test_the_documentation_alone_has_no_link_to_a_report(tmp_path):
    project = installed(tmp_path)
    run(project, "make", "docs")
    assert not re.search('href="[^"]*report.html"', (project / "site/README.html").read_text())


def test_a_site_without_a_report_is_an_error_of_one_line(tmp_path):
    project = installed(tmp_path)
    done = run(project, "make", "site", check=False)
    error, _ = done.stderr.splitlines()
    assert error == "error: metrics/report.html is missing; run `make repro`, or `dvc pull` if your team has it"
    assert done.returncode != 0
    assert not (project / "site").exists()
