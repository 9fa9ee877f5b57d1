"""Browser fixtures: Debian's chromium, no request off this machine, a running service for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.running import RunningService

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
ARGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


PATIENCE_MS = 30_000  # a machine that runs other things too shows a page late, not wrongly


@pytest.fixture(scope="session", autouse=True)
def patience() -> None:
    expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    if CHROMIUM is None:
        message = "no chromium: apt-get install chromium, or set CHROMIUM to a browser"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return {**browser_type_launch_args, "executable_path": CHROMIUM, "args": ARGS}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict[str, Any]) -> dict[str, Any]:
    # CSP is bypassed for axe alone, which injects its script; the pages' own test keeps it.
    size = {"width": 1280, "height": 800}
    return {
        **browser_context_args,
        "viewport": size,
        "reduced_motion": "reduce",
        "locale": "en-US",
        "timezone_id": "UTC",
    }


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    # A round must be startable after the dozen labels a browser test can give; nothing starts by itself.
    flags = ("--min-labels", "8", "--min-new-labels", "100000", "--max-wait-hours", "0")
    running = RunningService(tmp_path / "data", flags)
    running.start()
    yield running
    running.stop()


class Guard:
    """Collects what must not happen on a page: a request off this machine, an uncaught error."""

    def __init__(self) -> None:
        self.outside: list[str] = []
        self.errors: list[str] = []

    def watch(self, page: Page) -> None:
        page.on("request", lambda r: None if is_local(r.url) else self.outside.append(r.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))


def is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "data:", "blob:"))


@pytest.fixture
def guard() -> Iterator[Guard]:
    watching = Guard()
    yield watching
    assert not watching.outside
    assert not watching.errors
