"""A tester's acts in the chat, in a browser on a real service: what is saved is exactly what was done."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import closing
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from store.completions import read_completion
from store.database import Store
from store.judgements import read_judgements
from store.labels import TrainingRows, build_rows
from store.records import Completion, Judgement
from tests.e2e.accessible import find_faults_of_twin
from tests.e2e.conftest import Guard
from tests.e2e.pictures import take_picture
from tests.running import RunningService

SPOKEN = "html[data-hotkeys=ready] #chatbot .user.message"  # the conversation is there
PATIENCE_MS = 60_000  # a shared machine may be busy; nothing here asserts a time
SIZES = ({"width": 1280, "height": 800}, {"width": 390, "height": 844})


def open_chat(service: RunningService, browser: Browser, guard: Guard, context_args: dict[str, Any]) -> Page:
    """A new tester, signed in and on the chat page."""
    with service.client() as admin:
        made = admin.post(
            "/v1/people", json={"name": "tess", "role": "tester", "password": "a-long-password"}
        )
        made.raise_for_status()
    page = browser.new_context(**context_args).new_page()
    page.set_default_timeout(PATIENCE_MS)
    guard.watch(page)
    page.goto(f"{service.url}/login")
    page.get_by_label("Name").fill("tess")
    page.get_by_label("Password").fill("a-long-password")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/chat"))
    page.wait_for_selector("html[data-hotkeys=ready]")
    expect(page.locator("#starters button")).to_have_count(4)
    return page


def wait_for_answer(page: Page) -> None:
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator("#stop")).to_be_hidden()


def ask(page: Page, text: str) -> None:
    page.locator("#message textarea").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator("#chatbot .user.message").last).to_contain_text(text)
    wait_for_answer(page)
    page.keyboard.press("Escape")  # out of the box, so that keys are keys


def retry(page: Page) -> None:
    page.keyboard.press("r")
    expect(page.locator("#better")).to_be_visible()
    wait_for_answer(page)


def last_answer(page: Page) -> Locator:
    return page.locator("#chatbot .bot.message").last


def text_of(page: Page) -> str:
    """The last answer without its caption."""
    return last_answer(page).locator(".md > :not(:has(> .written-by))").all_inner_texts()[0].strip()


def learned(service: RunningService) -> tuple[list[Completion], TrainingRows, list[Judgement]]:
    """The answers in their order, what is learned from them and the comparisons."""
    assert service.stop() == 0
    with closing(Store.open(service.data)) as store:
        with store.read() as cursor:
            found = cursor.execute(
                "SELECT completion_id FROM completions WHERE prompt_id IS NULL ORDER BY seq"
            )
            ids = [completion_id for (completion_id,) in found.fetchall()]
            rows = build_rows(cursor)
        return [read_completion(store, each) for each in ids], rows, read_judgements(store)


def take_pictures(page: Page, name: str) -> None:
    for theme in ("light", "dark"):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")
        for size in SIZES:
            page.set_viewport_size(size)  # type: ignore[arg-type]
            take_picture(page, f"chat-{name}-{size['width']}-{theme}")
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= size["width"], f"{name} scrolls sideways: {width}"
    page.evaluate("document.body.classList.remove('dark')")
    page.set_viewport_size(SIZES[0])  # type: ignore[arg-type]


def rate_and_explain(page: Page) -> None:
    """A thumb is saved at once and explained afterwards."""
    ask(page, "What is the capital of France?")
    page.keyboard.press("j")
    expect(page.get_by_role("button", name="Disliked", exact=True)).to_have_count(1)
    page.get_by_label("Too long").check()
    page.locator("#rating-comment textarea, #rating-comment input").fill("one word would do")
    take_pictures(page, "thumb-down")
    page.locator("#save-reasons").click()
    expect(last_answer(page)).to_contain_text("Too long · “one word would do”")


def retry_and_compare(page: Page) -> None:
    """The old answer is kept, and the page asks which is better."""
    rated = text_of(page)
    retry(page)
    expect(last_answer(page)).to_contain_text("2 of 2")
    take_pictures(page, "retry")
    page.locator("#better-new").click()
    expect(page.locator("#chat-says")).to_contain_text("the new answer is better")
    last_answer(page).get_by_role("button", name="Previous answer").click()
    expect(last_answer(page)).to_contain_text("1 of 2")
    assert text_of(page) == rated
    last_answer(page).get_by_role("button", name="Next answer").click()
    expect(last_answer(page)).to_contain_text("2 of 2")


def edit_and_go_on(page: Page) -> None:
    """An edit beats the answer, and the conversation goes on from it."""
    new = text_of(page)
    last_answer(page).get_by_role("button", name="Edit").click()
    expect(page.locator("#edited textarea")).to_have_value(new)
    page.locator("#edited textarea").fill("Paris, of course.")
    take_pictures(page, "editor")
    page.locator("#save-edit").click()
    expect(last_answer(page)).to_contain_text("edited by you")
    ask(page, "And of Spain?")
    page.keyboard.press("k")
    expect(page.get_by_role("button", name="Liked", exact=True)).to_have_count(1)


def vote_side_by_side(browser: Browser, page: Page, context_args: dict[str, Any]) -> None:
    """Two answers at once, blind, voted by a key."""
    page.get_by_label("Side by side").check(force=True)
    page.locator("#message textarea").fill("And of Italy?")
    page.keyboard.press("Enter")
    expect(page.locator("#duel-votes")).to_be_visible()
    page.keyboard.press("Escape")
    assert "v0" not in page.locator("#duel").inner_text()
    take_pictures(page, "side-by-side")
    assert not find_faults_of_twin(browser, page, context_args, SPOKEN)
    page.keyboard.press("4")
    expect(page.locator("#voted")).to_contain_text("B slightly better")
    expect(last_answer(page)).to_contain_text("v0")
    take_pictures(page, "voted")


def reload_and_compare(browser: Browser, page: Page, context_args: dict[str, Any]) -> None:
    """A reload brings everything back."""
    before = page.locator("#chatbot .message-wrap").inner_text()
    page.reload()
    page.wait_for_selector("html[data-hotkeys=ready]")
    expect(page.locator("#voted")).to_contain_text("B slightly better")
    assert page.locator("#chatbot .message-wrap").inner_text() == before
    expect(page.get_by_role("button", name="Liked", exact=True)).to_have_count(1)
    assert not find_faults_of_twin(browser, page, context_args, SPOKEN)


def ask_anew(page: Page) -> None:
    """A question asked anew leaves the later turns on their branch."""
    page.locator("#chatbot .user.message").first.get_by_role("button", name="Edit").click()
    page.locator("#edited textarea").fill("What is the capital of Peru?")
    page.locator("#ask-anew").click()
    expect(page.locator("#duel-votes")).to_be_visible()
    page.keyboard.press("3")
    expect(page.locator("#voted")).to_contain_text("about the same")
    expect(page.locator("#chatbot .user.message")).to_have_count(1)
    page.get_by_role("button", name="Previous question").click()
    expect(page.locator("#chatbot .user.message")).to_have_count(3)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Playwright's own sockets at the end of a context
def test_thumbs_edits_retries_and_votes_come_back_and_are_exported(
    service: RunningService, browser: Browser, browser_context_args: dict[str, Any], guard: Guard
) -> None:
    page = open_chat(service, browser, guard, browser_context_args)
    take_pictures(page, "empty")
    rate_and_explain(page)
    retry_and_compare(page)
    edit_and_go_on(page)
    vote_side_by_side(browser, page, browser_context_args)
    reload_and_compare(browser, page, browser_context_args)
    ask_anew(page)
    page.context.close()

    spoken, rows, judgements = learned(service)
    first, second, _, *duel = spoken[:5]
    assert [j.choice for j in judgements] == ["tie", "prefer", "prefer"]
    left = next(c for c in duel if c.completion_id == judgements[1].left_id)
    right = next(c for c in duel if c != left)
    expected = [(second.text, first.text), ("Paris, of course.", second.text), (right.text, left.text)]
    assert Counter((pair.chosen, pair.rejected) for pair in rows.pairs) == Counter(
        pair
        for pair in expected
        if pair[0] != pair[1]  # of two equal answers there is nothing to learn
    )
    assert sorted(row.desirable for row in rows.ratings) == [False, True]
    assert (rows.reasons["thumb_down"], rows.reasons["thumb_up"], rows.reasons["tie"]) == (1, 1, 1)
    assert len(spoken) == 7, "every answer is kept"
