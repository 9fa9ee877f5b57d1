"""What each event of the annotate page does and shows; every handler checks the role, then calls the session.

An item leaves the screen only after its judgement was saved; when that fails, it and everything typed stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, cast

import gradio as gr

from annotate import session
from annotate.auth import require
from annotate.pages.acts import ACTS, SKIP, Act
from annotate.pages.faults import explain
from annotate.pages.showing import reveal
from annotate.pages.text import plain, safe_md
from annotate.pages.top_bar import write_account, write_links
from annotate.services import Services
from store.errors import BadValue, LeaseLost, StateConflict
from store.judgements import count_judgements
from store.records import Message, Person, TaskKind
from store.tasks import count_open_tasks

Update = Any  # a dict of component to new value, or gr.skip(); Gradio has no types of its own for it


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
            parts.stage: reveal(True, *([] if is_pair else ["single"])),
            parts.empty: reveal(False),
            parts.history: write_history(view.messages[:-1]),
            parts.prompt: safe_md(view.messages[-1]["content"]),
            parts.heading_a: write_heading("A" if is_pair else ""),
            parts.answer_a: safe_md(view.left),
            parts.answer_b: safe_md(view.right or ""),
            parts.side_b: reveal(is_pair),
            parts.pair_votes: reveal(is_pair, "votes"),
            parts.single_votes: reveal(not is_pair, "votes"),
            parts.both_bad: gr.update(visible=True if is_pair else "hidden"),
            parts.skip: gr.update(visible=True),
            parts.detail: reveal(True),
            parts.look_again: gr.update(active=False),
        }

    def _show_empty(self, person: Person, kind: str, says: str) -> Update:
        parts, hidden = self._parts, gr.update(visible="hidden")
        today = count_judgements(self._services.store, person.person_id, since=_midnight())
        return self._clear() | {
            parts.status: self._write_status(person, kind, says),
            parts.task_id: "",
            parts.stage: reveal(False),
            parts.empty: reveal(True),
            parts.empty_says: write_empty(today, kind),
            parts.pair_votes: reveal(False, "votes"),
            parts.single_votes: reveal(False, "votes"),
            parts.both_bad: hidden,
            parts.skip: hidden,
            parts.detail: reveal(False),
            parts.look_again: gr.update(active=True),
        }

    def _clear(self) -> dict[Any, Any]:
        parts = self._parts
        return {
            parts.not_saved: reveal(False),
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
        head = f"Not saved: {act.label}. " if act else f"{says} ".lstrip()
        return {
            parts.not_saved: reveal(True),
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


def write_heading(name: str) -> str:
    """The line above an answer; a single answer has no letter."""
    if not name:
        return '<h2 class="label">Answer</h2>'
    return f'<h2 class="label side-{name.lower()}"><span class="letter">{name}</span> Answer {name}</h2>'
