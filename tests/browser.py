"""A real browser for the tests that look at pages."""

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page

from tests.clone import ROOT

CHROMIUM = shutil.which("chromium")
# Accessibility checks (https://github.com/dequelabs/axe-core).
AXE = ROOT / ".venv/axe/node_modules/axe-core/axe.min.js"
NEEDED = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and AXE.exists()), reason="there is no Chromium or no axe-core: `make browser` installs them"
    ),
]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def window(
    browser: Browser,
    viewport: dict[str, int] = WIDE,
    color_scheme: str = "light",
    origin: str = "file:",
    known: Collection[str] = (),
) -> Iterator[Page]:
    """A new window, in which any warning, error or request to anything but ``origin`` is a failure.

    Warnings and errors in ``known`` are not.
    """
    complaints: list[str] = []
    context = browser.new_context(viewport=viewport, color_scheme=color_scheme)
    page = context.new_page()
    page.set_default_timeout(300_000)  # milliseconds: a busy machine is slow
    page.on(
        "console",
        lambda m: complaints.append(m.text) if m.type in ("error", "warning") and m.text not in known else None,
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((origin, "data:", "blob:")) else complaints.append(r.url))
    yield page
    context.close()
    assert not complaints, complaints


def violations(page: Page) -> list[tuple[str, str, str]]:
    """What axe-core finds: rule, explanation, element."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("async () => (await axe.run({preload: false})).violations")
    return [(v["id"], v["help"], v["nodes"][0]["html"]) for v in found]
