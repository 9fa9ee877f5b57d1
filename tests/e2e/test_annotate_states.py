"""The annotate page in each of its states, in a real browser over a real store: what it says, how it looks.

The model is left out, so that a test can hold every state still; axe reads each one, and pictures of all are
taken on request (pictures.py).
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect

from annotate.services import Services
from annotate.settings import AnnotationSettings
from annotate.web import build_app
from store.clock import utc
from store.completions import new_completion_id
from store.database import Store
from store.guidelines import accept_guidelines, set_guidelines
from store.judgements import read_judgements, save_judgement
from store.people import Credentials, add_person
from store.prompts import NewPrompt, add_prompts
from store.records import Completion, Message, Sampling, Task, TaskKind
from store.rounds import advance_round, create_round
from store.tasks import add_task, lease_task
from tests.e2e.accessible import find_faults
from tests.e2e.conftest import Guard
from tests.e2e.items import held_task, wait_for_item
from tests.e2e.pictures import take_picture
from tests.fakes import make_services
from tests.running import free_port

PASSWORD = "heed-demo-password"
READY = "html[data-hotkeys=ready]"
SIZES = {"wide": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
ALIKE = (
    "Water boils at **100 degrees** at sea level, and at *less* on a mountain.",
    "Water boils at **90 degrees** at sea level, and at *more* on a mountain.",
)
APART = (
    "Think of a **row of boxes**.\n\n- open the box\n- look inside\n\n"
    "```python\ndef look(box):\n    return box\n```",
    'A function that calls itself.<img src=x onerror="document.title=1"> It costs $$O(2^n)$$ at worst.',
)


def write_answer(prompt_id: str, messages: tuple[Message, ...], text: str) -> Completion:
    return Completion(
        completion_id=new_completion_id(),
        messages=messages,
        text=text,
        version="v0",
        sampling=Sampling(),
        token_ids=(1, 2),
        logprob_sum=-1.0,
        finish_reason="stop",
        num_prompt_tokens=3,
        created_at=utc(),
        prompt_id=prompt_id,
    )


def show_first(task: Task, _person_id: str) -> str:
    return task.completion_ids[0]


@dataclass
class Stage:
    """A web process over a store that the test holds too."""

    store: Store
    url: str
    ann: Credentials
    writing: dict[str, TaskKind | None] = field(default_factory=dict)
    made: int = 0

    def add(self, texts: tuple[str, ...] = APART, turns: int = 1) -> Task:
        """A task; `turns` messages are asked before the answers."""
        self.made += 1
        roles = ("user", "assistant")
        messages = tuple(
            Message(role=roles[n % 2], content=f"Explain recursion to a child. ({self.made}.{n})")  # type: ignore[typeddict-item]
            for n in range(turns)
        )
        prompt_id = add_prompts(self.store, [NewPrompt(messages)], "test").prompt_ids[0]
        answers = [write_answer(prompt_id, messages, text) for text in texts]
        return add_task(self.store, "pair" if len(texts) == 2 else "single", prompt_id, answers)

    def welcome(self) -> None:
        """Ann has read the guidelines before."""
        accept_guidelines(self.store, self.ann.person.person_id, 0)


class Server(threading.Thread):
    """The web process in a thread of its own, where Gradio finds the loop that it wants when it is built."""

    def __init__(self, services: Services, port: int) -> None:
        super().__init__(daemon=True)
        self._services, self._port = services, port
        self._server: uvicorn.Server | None = None
        self._is_up = threading.Event()

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        app = build_app(self._services)
        self._server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=self._port, log_level="warning")
        )
        self._is_up.set()
        await self._server.serve()

    def start(self) -> None:
        super().start()
        assert self._is_up.wait(60), "the web process ended at its start"
        assert self._server is not None
        while not self._server.started:
            assert self.is_alive(), "the web process ended at its start"

    def stop(self) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self.join(20)


@pytest.fixture(scope="module")
def port() -> int:
    """The same for all tests of this file, so that one browser can keep the page's scripts."""
    return free_port()


@pytest.fixture(scope="module")
def kept(browser: Browser, browser_context_args: dict[str, Any]) -> Iterator[BrowserContext]:
    """A browser that has been here before; what it remembers of people goes before each test."""
    context = browser.new_context(**browser_context_args, bypass_csp=True)
    yield context
    context.close()


@pytest.fixture
def stage(browser_type_launch_args: dict[str, Any], port: int) -> Iterator[Stage]:  # noqa: ARG001 - skips without a browser
    store = Store.in_memory()
    made = Stage(store, f"http://127.0.0.1:{port}", add_person(store, "ann", "annotator", PASSWORD))
    settings = AnnotationSettings(break_after_minutes=50)
    services = make_services(store, annotation=settings, writing=lambda: made.writing.get("now"))
    server = Server(services, port)
    server.start()
    yield made
    server.stop()
    store.close()


@pytest.fixture
def open_page(
    stage: Stage, kept: BrowserContext, browser: Browser, browser_context_args: dict[str, Any], guard: Guard
) -> Iterator[Callable[..., Page]]:
    """Opens the annotate page, signed in as ann; in another browser where something of it is changed."""
    contexts: list[BrowserContext] = []
    kept.clear_cookies()

    def opened(path: str = "/annotate/", **changes: Any) -> Page:
        context = kept
        if changes:
            context = browser.new_context(**{**browser_context_args, "bypass_csp": True, **changes})
            contexts.append(context)
        page = context.new_page()
        guard.watch(page)
        page.goto(f"{stage.url}/login")
        page.evaluate("localStorage.clear()")
        page.get_by_label("Name").fill("ann")
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_selector(READY)
        if path != "/annotate/":
            page.goto(f"{stage.url}{path}")
            page.wait_for_selector(READY)
        return page

    yield opened
    for page in kept.pages:
        page.close()
    for context in contexts:
        context.close()


def look(page: Page, name: str) -> None:
    """Pictures wide and on a phone, light and dark; no sideways scrolling, nothing serious for axe."""
    faults: list[str] = []
    for theme in ("light", "dark"):
        page.evaluate(f"document.body.classList.toggle('dark', {'true' if theme == 'dark' else 'false'})")
        for size, viewport in SIZES.items():
            page.set_viewport_size(viewport)  # type: ignore[arg-type]
            take_picture(page, f"annotate-{name}-{size}-{theme}")
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= viewport["width"], f"{name} scrolls sideways at {viewport['width']} px: {width}"
            if name != "item" and (size == "phone" or theme == "dark"):
                continue  # the same elements and the same colours; minutes less
            faults += [f"{size} {theme} {fault}" for fault in find_faults(page)]
    page.set_viewport_size(SIZES["wide"])  # type: ignore[arg-type]
    page.evaluate("document.body.classList.remove('dark')")
    assert not faults, "\n".join(faults)


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # Playwright's own sockets at the end
Opened = Callable[..., Page]


def test_the_first_visit_shows_guidelines_and_each_new_version_once_more(
    stage: Stage, open_page: Opened
) -> None:
    stage.add()
    stage.add()
    page = open_page()
    expect(page.locator("#guidelines")).to_contain_text("Two worked examples")
    expect(page.locator("#vote-bar")).to_be_hidden()
    page.keyboard.press("1")
    look(page, "welcome")
    page.keyboard.press("Enter")
    first = wait_for_item(page)
    expect(page.locator("#guidelines")).to_be_hidden()
    set_guidelines(stage.store, "Prefer the answer that is *true*.", "root")
    page.keyboard.press("2")
    expect(page.locator("#guidelines")).to_contain_text("Prefer the answer that is true.")
    look(page, "welcome-new")
    page.keyboard.press("Enter")
    assert wait_for_item(page) != first
    assert [judgement.task_id for judgement in read_judgements(stage.store)] == [first]
    page.keyboard.press("g")
    expect(page.locator("#guide-text")).to_be_visible()
    look(page, "guidelines")


def test_an_item_with_everything_open_reads_well(stage: Stage, open_page: Opened) -> None:
    stage.welcome()
    stage.add(APART, turns=3)
    page = open_page()
    wait_for_item(page)
    look(page, "item")
    page.keyboard.press("h")
    expect(page.locator("#history")).to_contain_text("Model")
    look(page, "history")
    page.keyboard.press("h")
    page.keyboard.press("s")
    expect(page.locator("#skip-asks")).to_be_visible()
    look(page, "skip")
    page.keyboard.press("5")  # not one of the four reasons: the question takes all keys
    page.keyboard.press("Escape")
    expect(page.locator("#skip-asks")).to_be_hidden()
    page.keyboard.press("q")
    expect(page.locator("#unsafe-a input")).to_be_checked()
    page.keyboard.press("e")
    page.keyboard.press("1")
    expect(page.locator("#k1")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#correction textarea")).not_to_have_value("")
    look(page, "detail")
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    expect(page.locator("#k1")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("?")
    look(page, "shortcuts")
    assert read_judgements(stage.store) == []


@pytest.mark.slow
def test_highlighting_is_offered_for_answers_that_are_much_alike(stage: Stage, open_page: Opened) -> None:
    stage.welcome()
    stage.add(ALIKE)
    page = open_page()
    wait_for_item(page)
    expect(page.locator("#highlight-offer")).to_contain_text("much alike")
    expect(page.locator("#answer-a mark")).to_have_count(0)
    page.keyboard.press("d")
    marked = page.locator("#answer-a mark, #answer-b mark")
    expect(marked).to_have_count(4)
    assert sorted(marked.all_inner_texts()) == ["100", "90", "less", "more"]
    expect(page.locator("#answer-a strong")).to_have_count(1)
    look(page, "differences")


def test_undo_shows_what_was_said_and_goes_further_back_each_time(stage: Stage, open_page: Opened) -> None:
    stage.welcome()
    tasks = [stage.add() for _ in range(3)]
    page = open_page()
    wait_for_item(page)
    page.keyboard.press("w")
    page.keyboard.press("5")
    second = wait_for_item(page, tasks[0].task_id)
    page.keyboard.press("e")
    page.keyboard.press("2")
    expect(page.locator("#k2")).to_have_attribute("aria-pressed", "true")
    page.get_by_label("Clarity").check()
    page.locator("#comment textarea").fill("says it in one line")
    page.keyboard.press("Control+Enter")
    wait_for_item(page, second)
    page.keyboard.press("u")
    expect(page.locator("#status")).to_contain_text(re.compile(r"Editing answer from \d\d:\d\d\s*$"))
    expect(page.locator("#comment textarea")).to_have_value("says it in one line")
    expect(page.get_by_label("Clarity")).to_be_checked()
    expect(page.locator("#k2")).to_have_attribute("aria-pressed", "true")
    look(page, "undo")
    page.keyboard.press("u")
    wait_for_item(page, second)
    expect(page.locator("#k5")).to_have_attribute("data-before", "")
    expect(page.locator("#unsafe-b input")).to_be_checked()
    expect(page.locator("#detail")).to_be_hidden()
    look(page, "undo-twice")
    page.keyboard.press("u")
    expect(page.locator("#status")).to_contain_text("Nothing to undo.")
    page.keyboard.press("1")
    wait_for_item(page, tasks[0].task_id)
    (standing,) = [judgement for judgement in read_judgements(stage.store) if not judgement.undone]
    assert (standing.task_id, standing.strength) == (tasks[0].task_id, 2)
    assert standing.chosen_id == standing.left_id
    assert standing.unsafe_ids != (standing.left_id,)


def test_a_choice_that_was_not_saved_survives_a_reload_and_enter_saves_it(
    stage: Stage, open_page: Opened
) -> None:
    stage.welcome()
    task = stage.add()
    stage.add()
    page = open_page()
    wait_for_item(page)
    page.keyboard.press("e")
    page.locator("#comment textarea").fill("typed before the break")
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    page.route("**/gradio_api/run/**", lambda route: route.abort())
    with page.expect_event("requestfailed", lambda request: "/gradio_api/run/" in request.url):
        page.keyboard.press("4")  # the page asks a moment later: without waiting, it may ask after the break
    page.unroute("**/gradio_api/run/**")
    page.reload()
    page.wait_for_selector(READY)
    expect(page.locator("#not-saved")).to_contain_text("Not saved: B slightly better.")
    expect(page.locator("#comment textarea")).to_have_value("typed before the break")
    expect(page.locator("#k4")).to_have_attribute("aria-pressed", "true")
    assert held_task(page) == task.task_id
    assert read_judgements(stage.store) == []
    look(page, "not-saved")
    page.keyboard.press("Enter")
    wait_for_item(page, task.task_id)
    (saved,) = read_judgements(stage.store)
    assert (saved.task_id, saved.strength, saved.comment) == (task.task_id, 1, "typed before the break")
    assert page.evaluate("Object.values(localStorage).join().includes('typed before')") is False


def test_an_item_that_went_to_somebody_else_is_said_to_be_reassigned(stage: Stage, open_page: Opened) -> None:
    stage.welcome()
    task = stage.add()
    page = open_page()
    wait_for_item(page)
    later = utc() + timedelta(hours=1)
    other = add_person(stage.store, "ben", "annotator", PASSWORD).person.person_id
    assert lease_task(stage.store, other, "pair", show_first, now=later)
    save_judgement(stage.store, task.task_id, other, choice="tie", now=later)
    stage.add()
    page.keyboard.press("1")
    expect(page.locator("#status")).to_contain_text("This item was reassigned; nothing was saved.")
    wait_for_item(page, task.task_id)
    look(page, "reassigned")
    assert [judgement.person_id for judgement in read_judgements(stage.store)] == [other]


def test_an_empty_queue_says_so_waits_for_the_model_and_goes_on_by_itself(
    stage: Stage, open_page: Opened
) -> None:
    stage.welcome()
    stage.add(("only answer",))
    page = open_page()
    expect(page.locator("#queue-empty")).to_contain_text("All caught up: 0 today")
    expect(page.locator("#to-other")).to_have_text("Rate single answers (1 ready)")
    look(page, "empty")
    stage.writing["now"] = "pair"
    expect(page.locator("#queue-empty")).to_contain_text("The model is writing this pair", timeout=15_000)
    look(page, "writing")
    stage.add()
    wait_for_item(page)
    expect(page.locator("#queue-empty")).to_be_hidden()
    page.locator("#kind").get_by_text("Single").click()
    expect(page.locator("#single-votes")).to_be_visible()
    look(page, "single")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#queue-empty")).to_contain_text("All caught up: 1 today")
    assert [judgement.choice for judgement in read_judgements(stage.store)] == ["up"]


@pytest.mark.slow
def test_a_round_and_a_long_stretch_of_work_are_mentioned(stage: Stage, open_page: Opened) -> None:
    stage.welcome()
    person_id, now = stage.ann.person.person_id, utc()
    for minutes in range(56, 0, -4):
        moment = now - timedelta(minutes=minutes)
        task = stage.add()
        assert lease_task(stage.store, person_id, "pair", show_first, now=moment)
        save_judgement(stage.store, task.task_id, person_id, choice="tie", active_ms=30_000, now=moment)
    stage.add()
    made = create_round(stage.store, "by hand", "v0")
    advance_round(stage.store, made.round_id, "preparing")
    page = open_page()
    wait_for_item(page)
    expect(page.locator("#notices")).to_contain_text("A training round is running; 0 items are ready.")
    if now.hour >= 1:  # the count begins at midnight UTC
        expect(page.locator("#notices")).to_contain_text("You have judged for 56 minutes without a pause.")
        expect(page.locator("#status")).to_contain_text("14 today · 30 s median · 120/h")
    page.keyboard.press("r")
    expect(page.locator(".decisions li")).to_have_count(10)
    look(page, "notices")
    page.locator("button.reopen").last.click()
    expect(page.locator("#status")).to_contain_text("Editing answer from")
    expect(page.locator("#k3")).to_have_attribute("data-before", "")
    expect(page.locator("#recent-list")).to_be_hidden()


def test_keys_can_be_switched_off_and_stay_off(stage: Stage, open_page: Opened) -> None:
    stage.welcome()
    stage.add()
    page = open_page()
    wait_for_item(page)
    page.keyboard.press("?")
    page.get_by_label("Keyboard shortcuts on").uncheck()
    page.reload()
    page.wait_for_selector("html[data-hotkeys=off]")
    wait_for_item(page)
    page.keyboard.press("1")
    page.keyboard.press("?")
    expect(page.locator("#shortcuts .sheet")).to_be_hidden()
    assert read_judgements(stage.store) == []


def test_before_the_first_item_the_page_is_a_skeleton(stage: Stage, open_page: Opened) -> None:
    stage.welcome()
    stage.add()
    page = open_page()
    wait_for_item(page)
    waiting = threading.Event()
    page.route("**/gradio_api/run/**", lambda _: waiting.set())  # never answered
    page.reload()
    page.wait_for_selector(READY)
    expect(page.locator("#preparing")).to_have_text("Preparing a pair")
    assert page.locator("#answer-a").bounding_box()["height"] >= 180  # type: ignore[index]
    look(page, "loading")
    page.unroute("**/gradio_api/run/**")
