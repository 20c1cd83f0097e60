"""Debian's Chromium without a window, for the tests and for benchmarks/scripts/report.py."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


def lacking() -> str:
    """What a browser needs and this machine has not."""
    programs = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return " and ".join(programs + ([] if find_spec("selenium") else ["selenium"]))


@contextmanager
def opened(page: Path | str, width: int = 1280, height: int = 900) -> Iterator[Any]:
    """A driver with the page loaded from disk or from an address, and its console kept."""
    from selenium import webdriver

    with tempfile.TemporaryDirectory() as folder:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for flag in (*FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            driver.get(page if isinstance(page, str) else page.absolute().as_uri())
            yield driver
        finally:
            driver.quit()
