"""A real browser for the report. Without one the tests are skipped, or fail if ``EDGEOPT_REQUIRE_BROWSER=1``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeopt.report import html
from tests import made_up_run

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser() -> Iterator:
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if found is None:
        why = f"no browser: none of {', '.join(_BROWSERS)} is installed"
        if os.environ.get("EDGEOPT_REQUIRE_BROWSER") == "1":
            pytest.fail(why)
        pytest.skip(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def reports(tmp_path_factory) -> dict[str, Path]:
    """Name of a run -> its report: everything that can happen, many targets, awkward names."""
    run = made_up_run.record()
    eventful, crowd, awkward = made_up_run.eventful(run), made_up_run.crowd(run, 20), made_up_run.awkward(run)
    no_devices = made_up_run.without_devices(run)
    texts = {
        "no devices": html.render(no_devices, {}),
        "eventful": html.render(eventful, made_up_run.samples(eventful), made_up_run.against_previous(eventful)),
        "crowd": html.render(crowd, made_up_run.samples(crowd)),
        "awkward": html.render(awkward, made_up_run.samples(awkward)),
    }
    folder = tmp_path_factory.mktemp("reports")
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}
