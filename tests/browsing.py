"""A real browser to test pages in."""

from __future__ import annotations

import shutil
from collections.abc import Generator

import pytest

pytest.importorskip("playwright.sync_api", reason="a browser needs playwright")

from playwright.sync_api import Browser, Error, sync_playwright


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with sync_playwright() as play:
        path = shutil.which("chromium") or play.chromium.executable_path
        try:
            browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as fault:
            pytest.skip(f"no Chromium here: {fault}")
        yield browser
        browser.close()
