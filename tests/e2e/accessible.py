"""What axe finds serious on a page: nothing, if anybody is to use it."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect


def find_faults(page: Page) -> list[str]:
    """The violations axe calls serious or critical, each with its first element. The page must bypass CSP."""
    serious = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
    return [
        f"{v['id']}: {v['nodes'][0]['html'][:200]} {v['nodes'][0].get('failureSummary', '')}" for v in serious
    ]


def find_faults_of_twin(
    browser: Browser, page: Page, context_args: dict[str, Any], wait_for: str
) -> list[str]:
    """The same of a page that keeps its CSP, which forbids axe's script: read on a second one like it, of the
    same session, once the element `wait_for` is there."""
    context = browser.new_context(**context_args, bypass_csp=True, storage_state=page.context.storage_state())
    twin = context.new_page()
    twin.goto(page.url)
    expect(twin.locator(wait_for).first).to_be_attached()
    found = find_faults(twin)
    context.close()
    return found
