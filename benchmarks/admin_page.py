"""How long the admin page takes in a browser, tab by tab, at 100,000 tasks and 300,000 judgements.

Run `python -m benchmarks.admin_page`. A real service over a store filled through its own events, one headless
Chromium. A time runs from asking for the address of a tab to the figures of the store being in the page, the
page's own scripts from the browser's cache. Prints a table; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.queue_store import add_people, add_tasks
from benchmarks.service import run_service
from store.database import Store
from store.people import add_person

PASSWORD = "a password of the benchmark"
# Nothing else shall run: no answers written ahead, no backup, and no round, however many labels there are.
QUIET = {
    "HEED_ROLLOUT__READY_PAIRS": "0",
    "HEED_ROLLOUT__READY_SINGLES": "0",
    "HEED_BACKUP_HOURS": "0",
    "HEED_MIN_NEW_LABELS": "1000000000",
}
# What only the tab's own reading of the store fills.
TABS = {
    "overview": ("#counts", r"judged today"),
    "rounds": ("#rounds", r"No rounds yet"),
    "versions": ("#versions", r"v0"),
    "data": ("#prompt-count", r"prompts"),
    "quality": ("#quality-people", r"annotator \d"),
    "people": ("#people", r"annotator \d"),
    "guidelines": ("#guidelines-accepted", r"annotator \d"),
    "settings": ("#acts", r"person added"),
}


def fill(data: Path, tasks: int, people: int) -> None:
    """A store with that many tasks, three judgements each, and an admin who can sign in."""
    store = Store.open(data)
    add_person(store, "root", "admin", PASSWORD)
    add_people(store, people)
    add_tasks(store, tasks, wanted=3, judged_by=3, num_people=people)
    store.close()


def sign_in(page: Page, url: str) -> None:
    page.goto(f"{url}/login")
    page.get_by_label("Name").fill("root")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/admin"))


def time_tab(page: Page, url: str, tab: str) -> float:
    """Milliseconds until the tab shows what it read."""
    element, words = TABS[tab]
    begun = time.perf_counter()
    page.goto(f"{url}/admin/?tab={tab}", wait_until="commit")
    page.locator(element).filter(has_text=re.compile(words)).wait_for(timeout=60_000)
    return (time.perf_counter() - begun) * 1000


def measure(url: str, turns: int) -> dict[str, list[float]]:
    """Every tab `turns` times, in turns; the first turn fills the browser's cache and is left out."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    found: dict[str, list[float]] = {tab: [] for tab in TABS}
    with sync_playwright() as playwright:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_page()
        sign_in(page, url)
        for turn in range(turns + 1):
            for tab, times in found.items():
                took = time_tab(page, url, tab)
                if turn:
                    times.append(took)
        browser.close()
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.admin_page", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--tasks", type=int, default=100_000, help="judged tasks (default: 100000)")
    parser.add_argument("--people", type=int, default=60, help="annotators (default: 60)")
    parser.add_argument("--turns", type=int, default=5, help="how often each tab is opened (default: 5)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="heed-admin-") as folder:
        data = Path(folder) / "data"
        fill(data, arguments.tasks, arguments.people)
        with run_service(data, QUIET) as (url, _):
            found = measure(url, arguments.turns)
    print(f"{'tab':<12}{'median ms':>12}{'slowest ms':>12}")
    for tab, times in found.items():
        print(f"{tab:<12}{statistics.median(times):>12.0f}{max(times):>12.0f}")
    print(json.dumps({tab: [round(took) for took in times] for tab, times in found.items()}))


if __name__ == "__main__":
    main()
