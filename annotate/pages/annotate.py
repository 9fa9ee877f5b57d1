"""The annotate page: one item, two answers (or one), one key. Wiring only; `annotate.session` knows what a click means.

Blind on purpose: nothing on this page tells which policy wrote an answer. An item leaves the screen only after its
judgement was saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, cast

import gradio as gr

from annotate import session
from annotate.auth import require
from annotate.pages.faults import explain
from annotate.pages.hotkeys import active_time, hotkeys
from annotate.pages.text import plain, safe_md
from annotate.pages.top_bar import top_bar, write_account, write_links
from annotate.services import Services
from store.errors import BadValue, LeaseLost, StateConflict
from store.judgements import count_judgements
from store.records import Message, Person, TaskKind
from store.tasks import count_open_tasks

Update = Any  # a dict of component to new value, or gr.skip(); Gradio has no types of its own for it

HEARTBEAT_S = 120.0
LOOK_AGAIN_S = 5.0

REASONS = (
    ("More correct", "correct"),
    ("Follows the request", "follows_request"),
    ("Clearer", "clear"),
    ("Better length", "length"),
    ("Safer", "safe"),
    ("Both have a problem", "problem"),
)


@dataclass(frozen=True)
class Act:
    """One button: what it says, what it means to the session, which keys press it."""

    elem_id: str
    label: str
    choice: str
    strength: int
    keys: tuple[str, ...]


PAIR_ACTS = (
    Act("k1", "A much better", "left", 2, ("1", "Shift+ArrowLeft")),
    Act("k2", "A slightly better", "left", 1, ("2", "ArrowLeft")),
    Act("k3", "About the same", "tie", 1, ("3", "ArrowDown")),
    Act("k4", "B slightly better", "right", 1, ("4", "ArrowRight")),
    Act("k5", "B much better", "right", 2, ("5", "Shift+ArrowRight")),
)
SINGLE_ACTS = (
    Act("down", "Bad answer", "down", 1, ("1", "ArrowLeft")),
    Act("up", "Good answer", "up", 1, ("2", "ArrowRight")),
)
BOTH_BAD = Act("k0", "Both bad", "both_bad", 1, ("0",))
SKIP = Act("skip", "Skip", "skip", 1, ("s",))
ACTS = {act.elem_id: act for act in (*PAIR_ACTS, *SINGLE_ACTS, BOTH_BAD, SKIP)}

_OTHER_KEYS = {
    "u": ["undo"],
    "Backspace": ["undo"],
    "Enter": ["retry"],
    "e": ["detail"],
    "h": ["history"],
    "?": ["shortcuts"],
}

_SHORTCUTS = """<details class="panel" id="shortcuts"><summary>Shortcuts <kbd>?</kbd></summary><div class="sheet">
<p>Read both answers, then press one key. It is saved at once and the next item comes; undo as often as you like.</p>
<dl><dt><kbd>1</kbd> … <kbd>5</kbd></dt><dd>A much better … B much better</dd>
<dt><kbd>←</kbd> <kbd>→</kbd></dt><dd>slightly better, with <kbd>Shift</kbd> much better</dd>
<dt><kbd>↓</kbd> <kbd>0</kbd></dt><dd>about the same, both bad</dd>
<dt><kbd>S</kbd> <kbd>U</kbd></dt><dd>skip, undo (also <kbd>Backspace</kbd>)</dd>
<dt><kbd>H</kbd> <kbd>E</kbd></dt><dd>earlier turns, reasons and comment</dd>
<dt><kbd>Esc</kbd></dt><dd>leave a field or this panel</dd>
<dt>Single</dt><dd><kbd>1</kbd> or <kbd>←</kbd> bad, <kbd>2</kbd> or <kbd>→</kbd> good</dd></dl>
<label><input type="checkbox" id="hotkeys-on" checked> Keyboard shortcuts on</label></div></details>"""

_TAKE_ACTIVE_MS = "(...a) => { a[a.length - 1] = window.heedActiveMs?.() ?? null; return a; }"
_NEXT_ITEM = "() => window.heedNextItem?.()"


@dataclass(frozen=True)
class Parts:
    """Every component that a handler reads or writes."""

    links: Any
    account: Any
    kind: Any
    status: Any
    not_saved: Any
    not_saved_says: Any
    stage: Any
    history: Any
    prompt: Any
    side_b: Any
    heading_a: Any
    answer_a: Any
    answer_b: Any
    empty: Any
    empty_says: Any
    pair_votes: Any
    single_votes: Any
    both_bad: Any
    skip: Any
    detail: Any
    reasons: Any
    comment: Any
    correction: Any
    task_id: Any
    active_ms: Any
    pending: Any
    look_again: Any

    def all(self) -> list[Any]:
        """The components in the order of their declaration, as Gradio wants its outputs."""
        return [getattr(self, part.name) for part in fields(self)]


def build_page(services: Services) -> Any:
    """The page as gr.Blocks; every handler checks the role first."""
    with gr.Blocks(title="Annotate · Heed", analytics_enabled=False) as page:
        links, account = top_bar("Annotate")
        buttons: dict[str, Any] = {}
        with gr.Column(elem_id="page"):
            parts = _lay_out(links, account, buttons)
        active_time()
        _bind_keys()
        _wire(page, services, parts, buttons)
    return page


def _lay_out(links: Any, account: Any, buttons: dict[str, Any]) -> Parts:
    with gr.Row(elem_id="tools"):
        kind = gr.Radio(
            [("Pairs", "pair"), ("Single", "single")],
            value="pair",
            label="What to judge",
            show_label=False,
            container=False,
            elem_id="kind",
        )
        status = gr.HTML("Loading…", js_on_load="element.setAttribute('role', 'status')", elem_id="status")
        gr.HTML(_SHORTCUTS, js_on_load=None, elem_id="help")
    with gr.Column(elem_id="not-saved", visible="hidden") as not_saved:
        not_saved_says = gr.HTML("", js_on_load=None, elem_id="not-saved-says")
        buttons["retry"] = gr.Button("Retry", elem_id="retry", size="sm")
    with gr.Column(elem_id="stage", elem_classes=["loading"]) as stage:
        history = gr.HTML("", js_on_load=None, elem_id="earlier")
        gr.HTML('<h2 class="label">Prompt</h2>', js_on_load=None)
        prompt = gr.Markdown("", elem_id="prompt", line_breaks=True)
        with gr.Row(elem_id="pair"):
            with gr.Column(elem_id="side-a", min_width=0):
                heading_a = gr.HTML(_heading("A"), js_on_load=None)
                answer_a = gr.Markdown("", elem_id="answer-a", line_breaks=True)
            with gr.Column(elem_id="side-b", min_width=0) as side_b:
                gr.HTML(_heading("B"), js_on_load=None)
                answer_b = gr.Markdown("", elem_id="answer-b", line_breaks=True)
    with gr.Column(elem_id="queue-empty", visible="hidden") as empty:
        empty_says = gr.HTML("", js_on_load=None)
    with gr.Column(elem_id="vote-bar"):
        with gr.Row(elem_id="pair-votes", elem_classes=["votes"]) as pair_votes:
            buttons |= {act.elem_id: _vote_button(act) for act in PAIR_ACTS}
        with gr.Row(elem_id="single-votes", elem_classes=["votes"], visible="hidden") as single_votes:
            buttons |= {act.elem_id: _vote_button(act) for act in SINGLE_ACTS}
        with gr.Row(elem_id="other-votes"):
            buttons |= {act.elem_id: _vote_button(act) for act in (BOTH_BAD, SKIP)}
            buttons["undo"] = gr.Button("Undo", elem_id="undo", elem_classes=["vote"], min_width=0)
    with gr.Accordion("Reasons and comment (optional)", open=False, elem_id="detail") as detail:
        reasons = gr.CheckboxGroup(list(REASONS), label="Why", elem_id="reasons")
        comment = gr.Textbox(label="Comment", lines=2, max_length=4000, elem_id="comment")
        correction = gr.Textbox(
            label="A better answer, in your words", lines=3, max_length=32_000, elem_id="correction"
        )
    return Parts(
        links=links,
        account=account,
        kind=kind,
        status=status,
        not_saved=not_saved,
        not_saved_says=not_saved_says,
        stage=stage,
        history=history,
        prompt=prompt,
        side_b=side_b,
        heading_a=heading_a,
        answer_a=answer_a,
        answer_b=answer_b,
        empty=empty,
        empty_says=empty_says,
        pair_votes=pair_votes,
        single_votes=single_votes,
        both_bad=buttons["k0"],
        skip=buttons["skip"],
        detail=detail,
        reasons=reasons,
        comment=comment,
        correction=correction,
        task_id=gr.Textbox(visible="hidden", elem_id="task-id", label="Task"),
        active_ms=gr.Number(visible="hidden", elem_id="active-ms", label="Active time"),
        pending=gr.Textbox(visible="hidden", elem_id="pending", label="Choice not saved yet"),
        look_again=gr.Timer(LOOK_AGAIN_S, active=False),
    )


def _vote_button(act: Act) -> Any:
    # Disabled until the first item is there: a press on nothing would only confuse.
    return gr.Button(act.label, elem_id=act.elem_id, elem_classes=["vote"], min_width=0, interactive=act is not SKIP)


def _heading(name: str) -> str:
    return f'<h2 class="label side-{name.lower()}"><span class="letter">{name}</span> Answer {name}</h2>'


def _bind_keys() -> None:
    keymap: dict[str, list[str]] = {key: list(ids) for key, ids in _OTHER_KEYS.items()}
    for act in ACTS.values():
        for key in act.keys:
            keymap.setdefault(key, []).append(act.elem_id)
    hotkeys(keymap)


def _wire(page: Any, services: Services, parts: Parts, buttons: dict[str, Any]) -> None:
    handlers = Handlers(services, parts)
    # Unqueued: a judgement never waits behind somebody's generation, and no tab holds an event stream open.
    quietly = {
        "outputs": parts.all(), "queue": False, "show_progress": "hidden", "api_visibility": "private"
    }  # fmt: skip
    clicked = [parts.task_id, parts.kind, parts.reasons, parts.comment, parts.correction, parts.active_ms]
    page.load(handlers.open, [parts.kind], **quietly)
    parts.kind.input(handlers.load, [parts.kind], **quietly)
    parts.look_again.tick(handlers.load, [parts.kind], **quietly)
    gr.Timer(HEARTBEAT_S).tick(handlers.renew, [parts.task_id, parts.kind], **quietly)
    for act in ACTS.values():
        buttons[act.elem_id].click(handlers.judging(act), clicked, js=_TAKE_ACTIVE_MS, **quietly)
    buttons["undo"].click(handlers.undo, [parts.kind], **quietly)
    buttons["retry"].click(handlers.retry, [parts.pending, *clicked], js=_TAKE_ACTIVE_MS, **quietly)
    parts.task_id.change(None, None, None, js=_NEXT_ITEM)


class Handlers:
    """One call into `annotate.session` each, and what the person sees when it fails."""

    def __init__(self, services: Services, parts: Parts) -> None:
        self._services = services
        self._parts = parts

    def open(self, kind: str, request: gr.Request) -> Update:
        """Fill the top bar and load the first item (or the one still held, after a reload)."""
        try:
            person = require(request.request, "annotator")
        except Exception as error:
            return self._refuse(error, "open this page")
        bar = {
            self._parts.links: write_links("Annotate", person.role),
            self._parts.account: write_account(person, None),
        }
        return bar | self._advance(person, kind, "")

    def load(self, kind: str, request: gr.Request) -> Update:
        """The next item of `kind`."""
        try:
            return self._advance(require(request.request, "annotator"), kind, "")
        except Exception as error:
            return self._refuse(error, "load the next item")

    def renew(self, task_id: str, kind: str, request: gr.Request) -> Update:
        """Keep holding the item on screen; when it is lost, say so and show another."""
        if not task_id:
            return gr.skip()
        try:
            person = require(request.request, "annotator")
            session.renew(self._services, person, task_id)
        except LeaseLost:
            return self._advance(person, kind, "That item was given to someone else; nothing was lost.")
        except Exception as error:
            return self._refuse(error, "keep this item reserved for you")
        return gr.skip()

    def judging(self, act: Act) -> Callable[..., Update]:
        """The handler of one button."""

        def judge(
            task_id: str,
            kind: str,
            reasons: list[str],
            comment: str,
            correction: str,
            active_ms: float | None,
            request: gr.Request,
        ) -> Update:
            return self._judge(act, task_id, kind, reasons, comment, correction, active_ms, request)

        return judge

    def retry(
        self,
        pending: str,
        task_id: str,
        kind: str,
        reasons: list[str],
        comment: str,
        correction: str,
        active_ms: float | None,
        request: gr.Request,
    ) -> Update:
        """The choice that was not saved, once more."""
        act = ACTS.get(pending)
        if act is None:
            return self.load(kind, request)
        return self._judge(act, task_id, kind, reasons, comment, correction, active_ms, request)

    def undo(self, kind: str, request: gr.Request) -> Update:
        """Bring the last item back with the same sides."""
        try:
            person = require(request.request, "annotator")
            view = session.undo(self._services, person)
        except Exception as error:
            return self._refuse(error, "undo")
        if view is None:
            return self._says(person, kind, "Nothing to undo.")
        return self._show(person, view, "Taken back. Judge it again.")

    def _judge(
        self,
        act: Act,
        task_id: str,
        kind: str,
        reasons: Sequence[str],
        comment: str,
        correction: str,
        active_ms: float | None,
        request: Any,
    ) -> Update:
        if not task_id:
            return gr.skip()
        try:
            person = require(request.request, "annotator")
            session.judge(
                self._services,
                person,
                task_id,
                act.choice,
                strength=act.strength,
                reasons=reasons,
                comment=comment or "",
                correction=correction or None,
                active_ms=None if active_ms is None else int(active_ms),
            )
        except LeaseLost:
            return self._advance(person, kind, "That item was given to someone else; nothing was saved.")
        except StateConflict as conflict:
            return self._advance(person, kind, explain(conflict, "save this judgement"))
        except Exception as error:
            return self._refuse(error, "save this judgement", act)
        return self._advance(person, kind, "Skipped." if act is SKIP else f"Saved: {act.label}.")

    def _advance(self, person: Person, kind: str, says: str) -> Update:
        """Show the next item. What came before is saved, so a failure here is only about the next one."""
        try:
            view = session.next_task(self._services, person, _check_kind(kind))
            return self._show_empty(person, kind, says) if view is None else self._show(person, view, says)
        except Exception as error:
            return self._refuse(error, "load the next item", says=says)

    def _show(self, person: Person, view: session.TaskView, says: str) -> Update:
        parts, is_pair = self._parts, view.kind == "pair"
        return self._clear() | {
            parts.kind: view.kind,
            parts.status: self._write_status(person, view.kind, says),
            parts.task_id: view.task_id,
            parts.stage: gr.update(visible=True, elem_classes=[] if is_pair else ["single"]),
            parts.empty: gr.update(visible="hidden"),
            parts.history: write_history(view.messages[:-1]),
            parts.prompt: safe_md(view.messages[-1]["content"]),
            parts.heading_a: _heading("A") if is_pair else '<h2 class="label">Answer</h2>',
            parts.answer_a: safe_md(view.left),
            parts.answer_b: safe_md(view.right or ""),
            parts.side_b: gr.update(visible=True if is_pair else "hidden"),
            parts.pair_votes: gr.update(visible=True if is_pair else "hidden"),
            parts.single_votes: gr.update(visible="hidden" if is_pair else True),
            parts.both_bad: gr.update(visible=True if is_pair else "hidden"),
            parts.skip: gr.update(visible=True, interactive=True),
            parts.detail: gr.update(visible=True),
            parts.look_again: gr.update(active=False),
        }

    def _show_empty(self, person: Person, kind: str, says: str) -> Update:
        parts, hidden = self._parts, gr.update(visible="hidden")
        today = count_judgements(self._services.store, person.person_id, since=_midnight())
        return self._clear() | {
            parts.status: self._write_status(person, kind, says),
            parts.task_id: "",
            parts.stage: gr.update(visible="hidden", elem_classes=[]),
            parts.empty: gr.update(visible=True),
            parts.empty_says: write_empty(today, kind),
            parts.pair_votes: hidden,
            parts.single_votes: hidden,
            parts.both_bad: hidden,
            parts.skip: hidden,
            parts.detail: hidden,
            parts.look_again: gr.update(active=True),
        }

    def _clear(self) -> dict[Any, Any]:
        parts = self._parts
        return {
            parts.not_saved: gr.update(visible="hidden"),
            parts.pending: "",
            parts.reasons: [],
            parts.comment: "",
            parts.correction: "",
        }

    def _says(self, person: Person, kind: str, says: str) -> Update:
        return {self._parts.status: self._write_status(person, kind, says)}

    def _refuse(self, error: Exception, act_name: str, act: Act | None = None, says: str = "") -> Update:
        """The red banner; the item and everything typed stay, and Retry repeats the same choice."""
        parts = self._parts
        head = f"Not saved: {act.label}. " if act else says + " "
        return {
            parts.not_saved: gr.update(visible=True),
            parts.not_saved_says: f'<p role="alert">{plain(head + explain(error, act_name))}</p>',
            parts.pending: act.elem_id if act else "",
        }

    def _write_status(self, person: Person, kind: str, says: str) -> str:
        store = self._services.store
        today = count_judgements(store, person.person_id, since=_midnight())
        ready = count_open_tasks(store, _check_kind(kind))
        return (
            f'<span class="numbers"><strong>{today}</strong> today · <strong>{ready}</strong> ready</span> '
            f'<span class="says">{plain(says)}</span>'
        )


def write_history(messages: Sequence[Message]) -> str:
    """The turns before the prompt, folded, as literal text; nothing when the prompt is the first."""
    if not messages:
        return ""
    names = {"system": "Instructions", "user": "Person", "assistant": "Model"}
    turns = "".join(
        f'<div class="turn {turn["role"]}"><b>{names[turn["role"]]}</b><p>{plain(turn["content"])}</p></div>'
        for turn in messages
    )
    count = "1 earlier turn" if len(messages) == 1 else f"{len(messages)} earlier turns"
    return f'<details id="history" class="turns"><summary>{count} <kbd>H</kbd></summary>{turns}</details>'


def write_empty(today: int, kind: str) -> str:
    """What to read when nothing is left to judge."""
    other = "single answers" if kind == "pair" else "pairs"
    done = "You have judged 1 item today." if today == 1 else f"You have judged {today} items today."
    return (
        f'<div class="empty"><h2>All caught up</h2><p>{done} New items appear here by themselves.</p>'
        f'<p class="muted">You can look for {other} above, or leave this page open.</p></div>'
    )


def _check_kind(kind: str) -> TaskKind:
    if kind not in ("pair", "single"):
        raise BadValue(f"kind {kind!r} is unknown; choose pair or single")
    return cast(TaskKind, kind)


def _midnight() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
