"""Pairs of the starter policy, judged by keyboard at one key each, then some by touch on a phone.

What was pressed is held against what the store keeps once the service has stopped; the time from key to next
item is printed, not judged: it depends on the machine.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from store.database import Store
from store.judgements import read_judgements
from store.records import Judgement
from tests.e2e.accessible import find_faults
from tests.e2e.conftest import Guard
from tests.e2e.items import held_task, wait_for_item
from tests.running import RunningService

PASSWORD = "heed-test-password"
PHONE = {"width": 390, "height": 844}
# What the keys say on the scale of five: the side that is chosen, how strongly.
SAYS: dict[str, tuple[str, str | None, int]] = {
    "1": ("prefer", "left", 2),
    "2": ("prefer", "left", 1),
    "3": ("tie", None, 0),
    "4": ("prefer", "right", 1),
    "5": ("prefer", "right", 2),
    "0": ("both_bad", None, 0),
    "ArrowLeft": ("prefer", "left", 1),
    "ArrowRight": ("prefer", "right", 1),
    "ArrowDown": ("tie", None, 0),
    "Shift+ArrowLeft": ("prefer", "left", 2),
    "Shift+ArrowRight": ("prefer", "right", 2),
}
KEYS = tuple(SAYS)


@dataclass(frozen=True)
class Said:
    """One act as it was made in the browser."""

    task_id: str
    choice: str
    side: str | None = None
    strength: int = 0
    reasons: tuple[str, ...] = ()
    correction: str | None = None
    comment: str = ""
    unsafe: tuple[str, ...] = ()


def said_of(judgement: Judgement, completion_ids: tuple[str, ...]) -> Said:
    """A stored act, told by the sides it was shown on."""
    names = {judgement.left_id: "left"}
    names |= {other: "right" for other in completion_ids if other != judgement.left_id}
    return Said(
        task_id=judgement.task_id,
        choice=judgement.choice,
        side=names[judgement.chosen_id] if judgement.chosen_id else None,
        strength=judgement.strength,
        reasons=judgement.reasons,
        correction=judgement.correction,
        comment=judgement.comment,
        unsafe=tuple(names[unsafe_id] for unsafe_id in judgement.unsafe_ids),
    )


class Rater:
    """A person at the annotate page; remembers every act and how long the next item took."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.said: list[Said] = []
        self.waits_ms: list[float] = []

    def press(self, *keys: str) -> str:
        """Press keys, the last of which saves, and wait for the next item; the task that was judged."""
        task_id = held_task(self.page)
        for key in keys[:-1]:
            self.page.keyboard.press(key)
        begun = time.perf_counter()
        self.page.keyboard.press(keys[-1])
        wait_for_item(self.page, task_id)
        self.waits_ms.append(1000 * (time.perf_counter() - begun))
        return task_id

    def rate(self, key: str) -> None:
        """One key, one judgement."""
        choice, side, strength = SAYS[key]
        self.said.append(Said(self.press(key), choice, side, strength))

    def tap(self, elem_id: str, said: tuple[str, str | None, int]) -> None:
        """The same with a finger."""
        task_id = held_task(self.page)
        self.page.locator(f"#{elem_id}").tap()
        wait_for_item(self.page, task_id)
        self.said.append(Said(task_id, *said))


def open_annotate(browser: Browser, guard: Guard, url: str, arguments: dict[str, Any]) -> Page:
    page = browser.new_context(**arguments).new_page()
    guard.watch(page)
    page.goto(f"{url}/login")
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("html[data-hotkeys=ready]")
    return page


def find_faults_of_themes(page: Page) -> list[str]:
    """What axe calls serious or critical, light and dark."""
    found = []
    for theme in ("light", "dark"):
        page.evaluate(f"document.body.classList.toggle('dark', {str(theme == 'dark').lower()})")
        found += [f"{theme} {fault}" for fault in find_faults(page)]
    page.evaluate("document.body.classList.remove('dark')")
    return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    flags = ("--max-wait-hours", "0", "--min-new-labels", "100000", "--rollout.ready-pairs", "70")
    running = RunningService(tmp_path / "data", flags)
    running.start()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()


def wait_until_written(service: RunningService, num_pairs: int) -> None:
    """Until that many pairs wait: what is measured is the page, not the starter policy's speed."""
    with service.client() as client:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            found = re.search(r"^heed_open_pairs (\d+)", client.get("/metrics").text, flags=re.MULTILINE)
            if found and int(found[1]) >= num_pairs:
                return
            time.sleep(0.5)
    raise AssertionError(f"the starter policy did not write {num_pairs} pairs in time")


def rate_pairs(rater: Rater, num_pairs: int) -> None:
    """So many pairs; among them an undo, two skips, a flag, an edit and a look at what differs."""
    page = rater.page
    for number in range(num_pairs - 6):
        rater.rate(KEYS[number % len(KEYS)])

    rater.rate("1")
    page.keyboard.press("u")  # taken back, seen again with what was said, and judged otherwise
    expect(page.locator("#k1")).to_have_attribute("data-before", "")
    expect(page.locator("#status")).to_contain_text("Editing answer from")
    assert held_task(page) == rater.said[-1].task_id
    rater.said.pop()
    rater.rate("5")

    rater.said.append(Said(rater.press("s", "2"), "skip", reasons=("bad_prompt",)))
    rater.said.append(Said(rater.press("s", "s"), "skip"))

    page.keyboard.press("w")
    expect(page.locator("#unsafe-b input")).to_be_checked()
    rater.said.append(Said(rater.press("2"), "prefer", "left", 1, unsafe=("right",)))
    expect(page.locator("#unsafe-b input")).not_to_be_checked()

    page.keyboard.press("d")
    expect(page.locator("#answer-a mark, #answer-b mark").first).to_be_visible()
    rater.rate("4")
    page.keyboard.press("d")
    expect(page.locator("#answer-a mark")).to_have_count(0)

    page.keyboard.press("e")
    page.keyboard.press("1")
    expect(page.locator("#k1")).to_have_attribute("aria-pressed", "true")
    edit = page.locator("#correction textarea")
    expect(edit).not_to_have_value("")
    edit.fill("What I would rather have read.")
    page.get_by_label("Clarity").check()
    page.locator("#comment textarea").fill("shorter")
    task_id = rater.press("Control+Enter")
    rater.said.append(
        Said(task_id, "prefer", "left", 2, ("clarity",), "What I would rather have read.", "shorter")
    )
    expect(page.locator("#detail")).to_be_hidden()


def rate_by_touch(rater: Rater) -> None:
    rater.tap("k5", ("prefer", "right", 2))
    rater.tap("k3", ("tie", None, 0))
    rater.tap("k0", ("both_bad", None, 0))
    page = rater.page
    task_id = held_task(page)
    page.locator("#unsafe-a input").tap()
    page.locator("#skip").tap()
    page.locator("#skip-4").tap()
    wait_for_item(page, task_id)
    rater.said.append(Said(task_id, "skip", reasons=("personal_data",), unsafe=("left",)))
    for elem_id in ("k1", "k5", "k0", "skip", "undo", "add-detail"):
        box = page.locator(f"#{elem_id}").bounding_box()
        assert box is not None
        assert box["height"] >= 44, elem_id
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def read_acts(data: Path) -> list[Said]:
    """Every standing act in the store, oldest first."""
    store = Store.open(data)
    with store.read() as cursor:
        rows = cursor.execute("SELECT task_id, first_id, second_id FROM tasks").fetchall()
    shown = {task_id: (first, second) for task_id, first, second in rows}
    acts = [said_of(j, shown[j.task_id]) for j in reversed(read_judgements(store)) if not j.undone]
    store.close()
    return acts


@pytest.mark.parametrize("num_pairs", [20, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Playwright's own sockets at the end of a context
def test_pairs_by_keyboard_and_four_by_touch_are_stored_as_they_were_pressed(
    service: RunningService,
    num_pairs: int,
    browser: Browser,
    browser_context_args: dict[str, Any],
    guard: Guard,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with service.client() as client:
        body = {"name": "ann", "role": "annotator", "password": PASSWORD}
        assert client.post("/v1/people", json=body).status_code == 201
    wait_until_written(service, num_pairs + 10)

    arguments = {**browser_context_args, "bypass_csp": True}
    desk = Rater(open_annotate(browser, guard, service.url, arguments))
    faults = find_faults_of_themes(desk.page)
    desk.page.keyboard.press("Enter")  # the guidelines are read
    wait_for_item(desk.page)
    faults += find_faults_of_themes(desk.page)
    rate_pairs(desk, num_pairs)
    assert len(desk.said) == num_pairs
    expect(desk.page.locator("#status")).to_contain_text(f"{num_pairs} today")
    desk.page.context.close()

    hand = open_annotate(browser, guard, service.url, {**arguments, "viewport": PHONE, "has_touch": True})
    touch = Rater(hand)
    wait_for_item(hand)
    faults += find_faults_of_themes(hand)
    rate_by_touch(touch)
    hand.context.close()

    waits = sorted(desk.waits_ms)
    p95 = waits[int(0.95 * (len(waits) - 1))]
    with capsys.disabled():
        sys.stdout.write(
            f"\nkey to next item over {len(waits)} judgements: "
            f"p50 {statistics.median(waits):.0f} ms, p95 {p95:.0f} ms\n"
        )
    assert not faults, "\n".join(faults)
    service.stop()
    assert read_acts(service.data) == desk.said + touch.said
