"""The admin page in a browser, on a real store with a crowd of known quality: what each tab shows, does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.e2e.accessible import find_faults
from tests.e2e.conftest import Guard
from tests.e2e.crowd import PASSWORD
from tests.e2e.pictures import take_picture
from tests.running import ROOT, free_port

START_LIMIT_S = 120.0
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
# Each tab with an element that only its own reading of the store fills, and what that must say.
TABS = {
    "overview": ("#serving", "slots writing"),
    "rounds": ("#curves", "What to do"),
    "versions": ("#versions", "candidate"),
    "data": ("#report", "ratings"),
    "quality": ("#quality-people", "lefty"),
    "people": ("#people", "lefty"),
    "guidelines": ("#guidelines-accepted", "asked at the next task"),
    "settings": ("#acts", "person added"),
}
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # Playwright's own sockets


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A demo server of its own; the tests of this file leave it as they found it, but for what they add."""
    port = free_port()
    command = [sys.executable, "-m", "tests.e2e.pages_demo", str(port)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_LIMIT_S
        while not is_up(address):
            assert process.poll() is None, "the demo server ended at its start"
            assert time.monotonic() < deadline, "the demo server was not up in time"
            time.sleep(0.1)
        yield address
        process.terminate()


def is_up(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def sign_in(context: BrowserContext, url: str) -> Iterator[BrowserContext]:
    """An admin's browser for all tests of this file: it keeps the pages' scripts, as a person's does."""
    page = context.new_page()
    page.goto(f"{url}/login")
    page.get_by_label("Name").fill("root")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/admin"))
    page.close()
    yield context
    context.close()


@pytest.fixture(scope="module")
def signed_in(url: str, browser: Browser, browser_context_args: dict[str, Any]) -> Iterator[BrowserContext]:
    yield from sign_in(browser.new_context(**browser_context_args, accept_downloads=True), url)


@pytest.fixture(scope="module")
def examined(url: str, browser: Browser, browser_context_args: dict[str, Any]) -> Iterator[BrowserContext]:
    """One for axe, which needs its script in the page: our CSP forbids that."""
    yield from sign_in(browser.new_context(**browser_context_args, bypass_csp=True), url)


@pytest.fixture
def admin(signed_in: BrowserContext, guard: Guard) -> Iterator[Page]:
    """A page on which an admin has signed in."""
    page = signed_in.new_page()
    guard.watch(page)
    yield page
    page.close()


def open_tab(page: Page, url: str, tab: str, theme: str = "light") -> None:
    """By address; back when the tab has read the store."""
    page.goto(f"{url}/admin/?tab={tab}&__theme={theme}")
    filled, words = TABS[tab]
    expect(page.locator(filled)).to_contain_text(words)


def pick(page: Page, dropdown: str, label: str) -> None:
    page.locator(f"#{dropdown} input").click()
    page.get_by_role("option", name=re.compile(rf"^\W*{re.escape(label)}")).first.click()


# The fullest tabs, and in the dark the one with the most colours; the others by `-m slow`.
QUICK = {("overview", "light"), ("rounds", "light"), ("quality", "dark")}
LOOKS = [
    pytest.param(tab, theme, marks=() if (tab, theme) in QUICK else pytest.mark.slow)
    for theme in ("light", "dark")
    for tab in TABS
]


@pytest.mark.parametrize(("tab", "theme"), LOOKS)
def test_a_tab_reads_the_store_fits_a_phone_and_has_no_serious_fault(
    examined: BrowserContext, guard: Guard, url: str, tab: str, theme: str
) -> None:
    page = examined.new_page()
    guard.watch(page)
    open_tab(page, url, tab, theme)
    expect(page.get_by_role("tab", name=tab.capitalize())).to_have_attribute("aria-selected", "true")
    faults = find_faults(page)
    for size, viewport in SIZES.items():
        page.set_viewport_size(viewport)  # type: ignore[arg-type]
        take_picture(page, f"admin-{tab}-{size}-{theme}", full_page=True)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= viewport["width"], f"{tab} scrolls sideways at {viewport['width']} px: {width}"
    page.close()
    assert not faults


def test_a_tab_that_is_clicked_is_in_the_address_and_there_after_a_reload(admin: Page, url: str) -> None:
    open_tab(admin, url, "overview")
    admin.get_by_role("tab", name="People").click()
    expect(admin.locator("#people")).to_contain_text("lefty")
    assert "tab=people" in admin.url
    admin.reload()
    expect(admin.locator("#people")).to_contain_text("lefty")


def test_a_file_is_shown_before_it_is_imported_and_its_source_can_be_dropped(
    admin: Page, url: str, tmp_path: Path
) -> None:
    rows = [
        {"prompt": f"Which? {n}", "chosen": f"It is {n}.", "rejected": "No <b>idea</b>."} for n in range(7)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    open_tab(admin, url, "data")
    admin.locator("#import-file").set_input_files(file)
    admin.locator("#import-source").fill("numbers")
    admin.locator("#import-preview").click()
    expect(admin.locator("#import-says")).to_contain_text("7 pair")
    expect(admin.locator("#import-shown tbody tr")).to_have_count(5)
    expect(admin.locator("#import-shown")).to_contain_text("No <b>idea</b>.")
    expect(admin.locator("#sources")).not_to_contain_text("import:numbers")
    admin.locator("#import-go").click()
    expect(admin.locator("#import-says")).to_contain_text("7 labels added, 0 known already")
    expect(admin.locator("#sources")).to_contain_text("import:numbers")

    pick(admin, "source-pick", "import:numbers")
    admin.locator("#source-drop").click()
    expect(admin.locator("#source-drop-row")).to_contain_text("Drop 7 labels of import:numbers?")
    admin.locator("#source-drop-confirm").click()
    expect(admin.locator("#source-says")).to_contain_text("7 labels of import:numbers dropped.")
    expect(admin.locator("#sources")).not_to_contain_text("import:numbers")


def test_bad_lines_are_named_and_given_back_when_they_are_skipped(
    admin: Page, url: str, tmp_path: Path
) -> None:
    good = {"prompt": "Which?", "chosen": "This.", "rejected": "That."}
    lines = [json.dumps(good), json.dumps(good | {"chosen": 7}), json.dumps(good | {"prompt": "Why?"})]
    file = tmp_path / "half.jsonl"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    open_tab(admin, url, "data")
    admin.locator("#import-file").set_input_files(file)
    admin.locator("#import-preview").click()
    expect(admin.locator("#import-shown")).to_contain_text("line 2")
    expect(admin.locator("#import-go")).to_be_hidden()
    admin.locator("#import-skip").click()
    expect(admin.locator("#import-says")).to_contain_text("2 labels added, 0 known already. 1 rejected.")
    with admin.expect_download() as download:
        admin.locator("#import-rejects").click()
    (rejected,) = Path(download.value.path()).read_text("utf-8").splitlines()
    assert json.loads(rejected)["place"] == 2


def test_an_export_is_a_file_of_every_label(admin: Page, url: str) -> None:
    open_tab(admin, url, "data")
    with admin.expect_download() as download:
        admin.locator("#export-go").click()
    rows = [json.loads(line) for line in Path(download.value.path()).read_text("utf-8").splitlines()]
    assert len(rows) > 40  # one a task that teaches; gold and repeats do not
    assert {row["format"] for row in rows} == {"preference"}
    assert "lefty" not in json.dumps(rows)


def test_a_disputed_task_is_decided_by_key_and_the_verdict_can_be_taken_back(admin: Page, url: str) -> None:
    open_tab(admin, url, "quality")
    shown = admin.locator("#disputed-id textarea, #disputed-id input").first
    expect(shown).not_to_have_value("")
    task = shown.input_value()
    votes = admin.locator("#disputed-votes")
    expect(votes).to_contain_text("waiting")
    assert not re.search(r"ada|ben|cleo|hasty|lefty|v0", admin.locator("#disputed").inner_text())
    admin.keyboard.press("2")
    expect(admin.locator("#disputed-says")).to_contain_text("Saved.")
    expect(shown).not_to_have_value(task)
    admin.locator("#verdict-undo").click()
    expect(admin.locator("#disputed-says")).to_contain_text("Taken back")
    expect(shown).to_have_value(task)
    admin.locator("#verdict-keys").uncheck()
    admin.keyboard.press("2")
    admin.keyboard.press("n")
    expect(shown).to_have_value(task)
    admin.locator("#verdict-next").click()
    expect(shown).not_to_have_value(task)
    admin.locator("#verdict-keys").check()


def test_unanimous_tasks_become_gold_after_a_question_and_can_be_dropped(admin: Page, url: str) -> None:
    open_tab(admin, url, "quality")
    admin.locator("#gold-promote").click()
    expect(admin.locator("#gold-promote-row")).to_contain_text("all alike")
    admin.locator("#gold-promote-confirm").click()
    expect(admin.locator("#gold-says")).to_contain_text("made gold.")
    expect(admin.locator("#gold")).to_contain_text("unanimous")
    admin.locator("#gold-pick input").click()
    admin.get_by_role("option").first.click()
    admin.locator("#gold-drop").click()
    admin.locator("#gold-drop-confirm").click()
    expect(admin.locator("#gold-says")).to_contain_text("is not gold any more")


def test_leaving_out_and_retraining_without_somebody_starts_a_round(admin: Page, url: str) -> None:
    open_tab(admin, url, "people")
    pick(admin, "person-who", "lefty")
    admin.locator("#person-leave-out").click()
    expect(admin.locator("#person-leave-out-row")).to_contain_text("Leave the labels of lefty out")
    admin.locator("#person-leave-out-confirm").click()
    expect(admin.locator("#person-training-says")).to_contain_text("lefty is left out of the next rounds.")
    expect(admin.locator("#people")).to_contain_text("left out of training")
    admin.locator("#person-take-in").click()
    expect(admin.locator("#person-training-says")).to_contain_text("lefty is trained on again.")

    admin.locator("#person-without").click()
    expect(admin.locator("#person-without-row")).to_contain_text("without the labels of lefty")
    admin.locator("#person-without-confirm").click()
    expect(admin.locator("#person-training-says")).to_contain_text("started without lefty")
    admin.get_by_role("tab", name="Overview").click()
    expect(admin.locator("#progress")).to_contain_text("step 269/352")
    admin.locator("#cancel").click()
    expect(admin.locator("#progress")).to_contain_text("cancelled")


def test_an_invite_link_signs_in_once_in_another_browser(
    admin: Page, url: str, browser: Browser, browser_context_args: dict[str, Any], guard: Guard
) -> None:
    open_tab(admin, url, "people")
    admin.locator("#person-name textarea, #person-name input").first.fill("nora")
    admin.locator("#person-role").get_by_label("tester", exact=True).check()
    admin.locator("#person-create").click()
    link = admin.locator("#person-secret code").first.inner_text()
    assert link.startswith(f"{url}/login?token=")
    for lands_on in ("/chat", "/login"):
        other = browser.new_context(**browser_context_args).new_page()
        guard.watch(other)
        other.goto(link)
        assert lands_on in other.url
        other.context.close()
    expect(admin.locator("#people")).to_contain_text("nora")


def test_a_deactivation_asks_first_and_can_be_undone(admin: Page, url: str) -> None:
    open_tab(admin, url, "people")
    pick(admin, "person-pick", "cleo")
    admin.locator("#person-deactivate").click()
    expect(admin.locator("#deactivate-row")).to_contain_text("Deactivate cleo?")
    admin.locator("#deactivate-confirm").click()
    expect(admin.locator("#people-says")).to_contain_text("cleo is deactivated.")
    admin.locator("#person-reactivate").click()
    expect(admin.locator("#people-says")).to_contain_text("cleo is active.")


def test_erasing_asks_for_the_name_and_says_what_it_came_to(admin: Page, url: str) -> None:
    open_tab(admin, url, "people")
    pick(admin, "erase-pick", "ben")
    admin.locator("#erase").click()
    expect(admin.locator("#erase-row")).to_contain_text("Erase ben for good")
    admin.locator("#erase-name textarea, #erase-name input").first.fill("Ben?")
    admin.locator("#erase-confirm").click()
    expect(admin.locator("#erase-row")).to_contain_text("type the name exactly")
    expect(admin.locator("#people")).to_contain_text("ben")
    admin.locator("#erase-name textarea, #erase-name input").first.fill("ben")
    admin.locator("#erase-confirm").click()
    expect(admin.locator("#erase-says")).to_contain_text("Erased.")
    expect(admin.locator("#erase-says")).to_contain_text("What to do now")
    expect(admin.locator("#people b", has_text="ben")).to_have_count(0)


def test_guidelines_are_previewed_as_written_and_saved_after_a_question(admin: Page, url: str) -> None:
    open_tab(admin, url, "guidelines")
    text = admin.locator("#guidelines-text textarea")
    text.fill("# Be kind\n\n<img src=x onerror=alert(1)> and **exact**.")
    expect(admin.locator("#guidelines-preview h1")).to_have_text("Be kind")
    expect(admin.locator("#guidelines-preview img")).to_have_count(0)
    admin.locator("#guidelines-save").click()
    expect(admin.locator("#guidelines-row")).to_contain_text("Save as version 1?")
    admin.locator("#guidelines-confirm").click()
    expect(admin.locator("#guidelines-versions")).to_contain_text("Version 1")


def test_a_canary_is_started_after_a_question_and_shown_beside_live_until_it_is_stopped(
    admin: Page, url: str
) -> None:
    open_tab(admin, url, "versions")
    status = admin.locator("#canary")
    expect(status).to_contain_text("No version is on trial")
    expect(admin.locator("#canary-end")).to_be_hidden()
    pick(admin, "canary-pick", "v2")
    admin.locator("#canary-share input").fill("25")
    admin.locator("#canary-start").click()
    expect(admin.locator("#canary-start-row")).to_contain_text(
        "Let v2 (candidate) answer 25 % of conversations"
    )
    admin.locator("#canary-start-confirm").click()
    expect(admin.locator("#canary-says")).to_contain_text("v2 is on trial beside v1.")
    expect(status).to_contain_text("25.0 % of conversations set, no conversation yet")
    expect(status).to_contain_text("each side needs 10")
    expect(admin.locator("#canary-begin")).to_be_hidden()
    admin.locator("#canary-stop").click()
    admin.locator("#canary-stop-reason textarea, #canary-stop-reason input").first.fill("seen enough")
    admin.locator("#canary-stop-confirm").click()
    expect(admin.locator("#canary-past")).to_contain_text("seen enough")
    expect(status).to_contain_text("No version is on trial")
