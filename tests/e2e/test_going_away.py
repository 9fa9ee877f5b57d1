"""Whoever goes away frees their place in the engine: API clients and browser tabs, answered or still waiting.

Real sockets, a real browser and the real engine, which is in the test's process so that it can be looked at.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from annotate.web import build_app
from building import Service, build_service
from settings import ServeSettings
from store.people import Credentials, add_person
from tests.served import serve

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # Playwright's own sockets

URL = "/v1/chat/completions"
PATIENCE_S = (
    20.0  # for a busy machine; what it took is printed (`-s`), and benchmarks/overload.py measures it
)
ALL_SLOTS = 32
LENGTH = 900  # tokens an answer has unless it is stopped: seconds, also for one alone
HELLO = [{"role": "user", "content": "Hello?"}]


@dataclass(frozen=True)
class Running:
    """The service, where it listens, and a tester with a program; tess has the page."""

    service: Service
    url: str
    tester: Credentials

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tester.token}"}

    def load(self) -> tuple[int, int]:
        """How many requests run and wait."""
        stats = self.service.parts.engine.stats().versions["v0"]
        return stats.running, stats.waiting

    def wait_for(self, load: tuple[int, int]) -> float:
        """Wait until that many run and wait; how many seconds it took."""
        begun = time.monotonic()
        while self.load() != load:
            assert time.monotonic() - begun < PATIENCE_S, f"running and waiting: {self.load()}, not {load}"
            time.sleep(0.005)
        return time.monotonic() - begun

    def reasons(self) -> list[str]:
        """How the answers given so far ended, oldest first."""
        assert self.service.services.slots.wait_until_idle(PATIENCE_S)
        with self.service.parts.store.read() as cursor:
            rows = cursor.execute("SELECT finish_reason FROM completions ORDER BY seq").fetchall()
        return [reason for (reason,) in rows]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data: Path = tmp_path_factory.mktemp("going-away")
    settings = ServeSettings.read(["--data", str(data), "--web.in-flight-per-person", "40"], "serve")
    service = build_service(settings)
    service.parts.engine._batch._end_ids = (
        frozenset()
    )  # nothing it writes is an end: an answer ends when it is stopped
    long = replace(service.services.settings, max_tokens=LENGTH)
    tester = add_person(service.parts.store, "bob", "tester")
    add_person(service.parts.store, "tess", "tester", "a-long-password")
    with serve(build_app(replace(service.services, settings=long))) as url:
        yield Running(service, url, tester)
    service.close()


@pytest.fixture(autouse=True)
def _idle(running: Running) -> Iterator[None]:
    yield
    running.wait_for((0, 0))


def leave_streaming(running: Running, load: tuple[int, int]) -> None:
    body = {"messages": HELLO, "stream": True, "max_tokens": LENGTH}
    with httpx.stream("POST", running.url + URL, json=body, headers=running.headers) as reply:
        next(reply.iter_lines())
        running.wait_for(load)


def leave_waiting_for_the_whole(running: Running, load: tuple[int, int]) -> None:
    connection = http.client.HTTPConnection(running.url.removeprefix("http://"))
    body = json.dumps({"messages": HELLO, "max_tokens": LENGTH})
    connection.request("POST", URL, body, {**running.headers, "content-type": "application/json"})
    running.wait_for(load)
    connection.close()


def tell(what: str, took_s: float) -> None:
    print(f"{what} was free after {took_s * 1000:.0f} ms")  # noqa: T201  shown with -s; nothing is asserted


LEAVING = pytest.mark.parametrize("leave", [leave_streaming, leave_waiting_for_the_whole])
Leave = Callable[[Running, tuple[int, int]], None]


@LEAVING
def test_a_client_that_goes_away_in_mid_answer_frees_its_slot(running: Running, leave: Leave) -> None:
    leave(running, (1, 0))
    took_s = running.wait_for((0, 0))
    assert running.reasons()[-1] == "cancelled"
    tell(f"{leave.__name__}: the slot", took_s)


@contextmanager
def all_slots_taken(running: Running) -> Iterator[None]:
    """Every slot writes for somebody else, until the end."""
    with httpx.Client(base_url=running.url, headers=running.headers, timeout=PATIENCE_S) as client:
        body = {"messages": HELLO, "stream": True, "n": 8, "max_tokens": LENGTH}
        replies = []
        for _ in range(ALL_SLOTS // 8):
            replies.append(client.send(client.build_request("POST", URL, json=body), stream=True))
        running.wait_for((ALL_SLOTS, 0))
        yield
        for reply in replies:
            reply.close()


@LEAVING
def test_a_client_that_goes_away_while_it_waits_leaves_the_queue(running: Running, leave: Leave) -> None:
    with all_slots_taken(running):
        leave(running, (ALL_SLOTS, 1))
        took_s = running.wait_for((ALL_SLOTS, 0))
    tell(f"{leave.__name__}: the queue", took_s)
    running.wait_for((0, 0))
    assert set(running.reasons()[-ALL_SLOTS:]) == {"cancelled"}


@contextmanager
def open_chat(running: Running, browser: Browser, context_args: dict[str, Any]) -> Iterator[Page]:
    context = browser.new_context(**context_args)
    page = context.new_page()
    page.goto(f"{running.url}/login")
    page.get_by_label("Name").fill("tess")
    page.get_by_label("Password").fill("a-long-password")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/chat"))
    page.wait_for_selector("html[data-hotkeys=ready]")
    yield page
    context.close()


def send(page: Page) -> None:
    page.locator("#message textarea").fill("Hello?")
    page.keyboard.press("Enter")


def test_a_tab_closed_in_mid_answer_frees_its_slot(
    running: Running, browser: Browser, browser_context_args: dict[str, Any]
) -> None:
    with open_chat(running, browser, browser_context_args) as page:
        send(page)
        expect(page.locator("#chatbot .bot.message").last).to_contain_text("v0")
        running.wait_for((1, 0))
        page.close()
        took_s = running.wait_for((0, 0))
    assert running.reasons()[-1] == "cancelled"
    tell("a closed tab: the slot", took_s)


def test_a_tab_closed_while_it_waits_leaves_the_queue(
    running: Running, browser: Browser, browser_context_args: dict[str, Any]
) -> None:
    with open_chat(running, browser, browser_context_args) as page:
        before = len(running.reasons())
        with all_slots_taken(running):
            send(page)
            running.wait_for((ALL_SLOTS, 1))
            expect(page.locator("#chatbot .bot.message").last).to_contain_text("in line")
            page.close()
            took_s = running.wait_for((ALL_SLOTS, 0))
        running.wait_for((0, 0))
        assert len(running.reasons()) == before + ALL_SLOTS, "nothing was kept of what was never begun"
    tell("a closed tab: the queue", took_s)
