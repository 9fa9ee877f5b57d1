"""Waiting for the item on the annotate page, as a browser test has to: until the keys are its own."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.e2e.conftest import PATIENCE_MS

# An item is on screen once its id has changed; panels of the last one may still be open and take the keys.
# The page names the item in `data-item` when that is settled.
_SETTLED = """before => {
    const held = document.querySelector('#task-id textarea, #task-id input').value;
    return held && held !== before && document.documentElement.dataset.item === held
        && document.querySelector('#answer-a').innerText.trim(); }"""


def held_task(page: Page) -> str:
    """The id of the task on screen, "" with none."""
    return page.locator("#task-id textarea, #task-id input").first.input_value()


def wait_for_item(page: Page, other_than: str = "") -> str:
    """Until another item than that is on screen and takes the keys; its task id."""
    page.wait_for_function(_SETTLED, arg=other_than, polling=10, timeout=PATIENCE_MS)
    return held_task(page)
