"""A real browser for tests of pages: Debian's chromium, driven by playwright.

Without one the tests are skipped with the reason, except where STAGEGATE_NEEDS_BROWSER is set, as in `.ci/run`: there
a missing browser is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PHONE, DESKTOP = 390, 1280
FLAGS = (
    "--no-sandbox",  # root, as in a container, may start it no other way
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Opened:
    """A page in the browser and what it did."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    """Console messages and uncaught errors."""
    asked_for: list[str] = field(default_factory=list)
    """Addresses it tried to load, but for the file itself."""

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the screen."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")

    def column(self, table: str, number: int) -> list[str]:
        """Return the texts of a column."""
        rows = self.page.query_selector_all(f"{table} tbody tr")
        return [row.query_selector_all("th, td")[number].inner_text() for row in rows]


@contextmanager
def a_browser() -> Iterator[Any]:
    """Start the browser; skip the test where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        told = "chromium is not installed; it comes with: apt-get install chromium"
        if os.environ.get("STAGEGATE_NEEDS_BROWSER"):
            pytest.fail(told)
        pytest.skip(told)
    # Here, so that the tests are collected where playwright is not installed.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, path: Path, width: int = DESKTOP) -> Iterator[Opened]:
    """Open a file as a reader would; nothing but that file is let through."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    found = Opened(context.new_page())
    address = path.absolute().as_uri()

    def decide(route: Any) -> None:
        if route.request.url.split("#")[0] == address:
            route.continue_()
        else:
            found.asked_for.append(route.request.url)
            route.abort()

    context.route("**/*", decide)
    found.page.on("console", lambda message: found.complaints.append(message.text))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.goto(address)
    try:
        yield found
    finally:
        context.close()
