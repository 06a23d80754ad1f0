"""Debian's Chromium, driven by Playwright without a browser of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .need import need, need_module

_FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]


@contextmanager
def chromium() -> Iterator[Any]:
    """Launch a headless Chromium; yields Playwright's `Browser`."""
    program = need("chromium", install="apt install chromium")
    playwright = need_module("playwright.sync_api", "pip install playwright")
    with playwright.sync_playwright() as driver:
        # root has no user namespace to build the sandbox in; the pages are the tests' own
        browser = driver.chromium.launch(
            executable_path=program, headless=True, chromium_sandbox=False, args=_FLAGS
        )
        try:
            yield browser
        finally:
            browser.close()
