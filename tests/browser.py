"""A real browser for the tests that look at pages."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium")
# Accessibility checks (https://github.com/dequelabs/axe-core).
AXE = ROOT / ".venv/axe/node_modules/axe-core/axe.min.js"
NEEDED = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and AXE.exists()), reason="there is no Chromium or no axe-core: `make browser` installs them"
    ),
]
LOCAL = ("file:", "data:")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


class Window:
    """A new window, in which any warning, error or request to another machine is a failure."""

    def __init__(self, browser: Browser, viewport: dict[str, int], color_scheme: str) -> None:
        self.complaints: list[str] = []
        self.context = browser.new_context(viewport=viewport, color_scheme=color_scheme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(300_000)  # milliseconds: a busy machine is slow
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda r: None if r.url.startswith(LOCAL) else self.complaints.append(r.url))

    def visit(self, path: Path) -> Page:
        self.page.goto(path.absolute().as_uri())
        return self.page

    def close(self) -> None:
        self.context.close()
        assert not self.complaints, self.complaints


def violations(page: Page) -> list[tuple[str, str, str]]:
    """What axe-core finds: rule, explanation, element."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("async () => (await axe.run({preload: false})).violations")
    return [(v["id"], v["help"], v["nodes"][0]["html"]) for v in found]
