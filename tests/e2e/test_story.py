"""The product in one go: sign in, invite, rate, chat, train, watch, see the new version live, roll back."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, TimeoutError, expect

from tests.e2e.accessible import find_faults_of_twin
from tests.e2e.conftest import Guard
from tests.e2e.items import wait_for_item
from tests.e2e.pictures import FOLDER, take_picture
from tests.running import RunningService

ROUND_LIMIT_MS = 300_000
BOTH_READY = "html[data-hotkeys=ready]"
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}


def open_page(browser: Browser, guard: Guard, context_args: dict[str, Any]) -> Page:
    page = browser.new_context(**context_args).new_page()
    guard.watch(page)
    return page


def create_person(admin: Page, name: str, role: str) -> str:
    """Through the admin page's form; returns the password that it shows once."""
    admin.get_by_role("tab", name="People").click()
    admin.locator("#person-name textarea, #person-name input").first.fill(name)
    admin.locator("#person-role").get_by_label(role, exact=True).check()
    admin.locator("#person-create").click()
    secret = admin.locator("#person-secret")
    expect(secret).to_contain_text(name)
    found = re.search(r"[Pp]assword:?\s*(\S+)", secret.inner_text())
    assert found, secret.inner_text()
    return found.group(1)


def sign_in(page: Page, url: str, name: str, password: str) -> None:
    page.goto(f"{url}/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/(annotate|chat|admin)"))


def rate_by_keyboard(page: Page, url: str, count: int) -> None:
    """Prefer the shorter answer, with the keys 2 and 4 alone; every answer must bring a new task."""
    page.goto(f"{url}/annotate/")
    page.wait_for_selector(BOTH_READY)
    expect(page.locator("#start")).to_be_visible()
    page.keyboard.press("Enter")  # the guidelines are read
    task = ""
    for _ in range(count):
        task = wait_for_item(page, task)
        lengths = [len(page.locator(f"#answer-{side}").inner_text()) for side in "ab"]
        page.keyboard.press("2" if lengths[0] <= lengths[1] else "4")
    expect(page.locator("#status")).to_contain_text(f"{count} today")


def say(page: Page, text: str) -> None:
    answers = page.locator("#chatbot .bot.message")
    before = answers.count()
    page.locator("#message textarea").fill(text)
    page.keyboard.press("Enter")
    expect(answers).to_have_count(before + 1)
    expect(page.locator("#message textarea")).to_be_enabled()
    expect(page.locator("#message textarea")).to_have_value("")
    expect(page.locator("#stop")).to_be_hidden()


def give_thumb(page: Page, name: str) -> None:
    """Gradio draws an answer anew when it has ended, and a click in that moment is lost; the button's own
    name says at once whether it was taken."""
    taken = page.get_by_role("button", name=f"{name}d", exact=True).last
    for _ in range(5):
        page.get_by_role("button", name=name, exact=True).last.click()
        with contextlib.suppress(TimeoutError):
            taken.wait_for(timeout=5_000)
            return
    raise AssertionError(f"five clicks on {name!r} were lost")


def start_new_chat(page: Page) -> None:
    page.locator("#new-chat").click()
    expect(page.locator("#chatbot .bot.message")).to_have_count(0)


def take_pictures(page: Page, name: str) -> None:
    """Four pictures a page where they are wanted; a phone must not scroll sideways in any case."""
    address = page.url.partition("?")[0]
    for theme in ("light", "dark") if FOLDER else ("light",):
        page.goto(f"{address}?__theme={theme}")
        page.wait_for_selector("h1", state="attached")
        for size, viewport in SIZES.items():
            page.set_viewport_size(viewport)  # type: ignore[arg-type]
            expect(page.locator(".progress-text, .generating")).to_have_count(0)
            take_picture(page, f"{name}-{size}-{theme}", full_page=True)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= viewport["width"], f"{name} scrolls sideways at {viewport['width']} px: {width}"
    page.set_viewport_size(SIZES["desktop"])  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Playwright's own sockets at the end of a context
def test_the_whole_story(
    service: RunningService, browser: Browser, browser_context_args: dict[str, Any], guard: Guard
) -> None:
    admin = open_page(browser, guard, browser_context_args)
    admin.goto(service.admin_link())
    admin.goto(f"{service.url}/admin/")
    expect(admin.locator("#counts")).to_contain_text("v0")
    passwords = {
        name: create_person(admin, name, role) for name, role in (("ann", "annotator"), ("tess", "tester"))
    }

    annotator = open_page(browser, guard, browser_context_args)
    sign_in(annotator, service.url, "ann", passwords["ann"])
    rate_by_keyboard(annotator, service.url, 12)

    tester = open_page(browser, guard, browser_context_args)
    sign_in(tester, service.url, "tess", passwords["tess"])
    tester.goto(f"{service.url}/chat/")
    say(tester, "What is the capital of France?")
    give_thumb(tester, "Like")
    expect(tester.locator("#chat-says")).to_contain_text("Saved: good answer.")  # Gradio shows it before
    say(tester, "And of Spain?")
    give_thumb(tester, "Dislike")
    expect(tester.locator("#chat-says")).to_contain_text("Saved: bad answer.")
    tester.reload()
    expect(tester.get_by_role("button", name="Liked", exact=True)).to_have_count(1)
    expect(tester.get_by_role("button", name="Disliked", exact=True)).to_have_count(1)

    admin.get_by_role("tab", name="Overview").click()
    admin.locator("#train-now").click()
    expect(admin.locator("#progress")).to_contain_text(
        re.compile(r"step \d+|training|evaluating", re.I), timeout=ROUND_LIMIT_MS
    )
    admin.get_by_role("tab", name="Rounds").click()
    expect(admin.locator("#gate")).to_contain_text(re.compile("promote", re.I), timeout=ROUND_LIMIT_MS)
    admin.get_by_role("tab", name="Overview").click()
    expect(admin.locator("#counts")).to_contain_text("v1", timeout=30_000)

    start_new_chat(tester)
    say(tester, "How do I boil an egg?")
    expect(tester.locator("#chatbot")).to_contain_text("v1")

    for page, name in ((annotator, "annotate"), (tester, "chat"), (admin, "admin")):
        take_pictures(page, name)
        assert not find_faults_of_twin(browser, page, browser_context_args, "h1"), name

    admin.get_by_role("tab", name="Versions").click()
    admin.locator("#rollback").click()
    admin.locator("#rollback-confirm").click()
    expect(admin.locator("#version-says")).to_contain_text("Rolled back")
    admin.get_by_role("tab", name="Overview").click()
    expect(admin.locator("#counts")).to_contain_text("v0", timeout=30_000)
    start_new_chat(tester)
    say(tester, "How do I boil an egg?")
    expect(tester.locator("#chatbot")).to_contain_text("v0")
    for page in (annotator, tester, admin):
        page.context.close()
