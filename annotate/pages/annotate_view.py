"""What the annotate page shows in each of its states, as updates of its components. Decides nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import gradio as gr

from annotate.acts import CORRECTABLE
from annotate.guidelines import read_guidelines
from annotate.pages.acts import Act, Acts
from annotate.pages.annotate_parts import Parts
from annotate.pages.annotate_text import (
    write_empty,
    write_guide_head,
    write_heading,
    write_history,
    write_notices,
    write_other_kind,
    write_status,
    write_time,
)
from annotate.pages.desk import Cue, Draft
from annotate.pages.differences import likeness, mark_differences
from annotate.pages.showing import reveal
from annotate.pages.text import plain, safe_md
from annotate.services import Services
from annotate.session import Earlier, TaskView
from store.pace import Pace, read_pace
from store.records import Person, TaskKind
from store.rounds import running_round
from store.tasks import count_open_tasks

LOOK_SOON_S, LOOK_AGAIN_S = 1.5, 5.0

Updates = dict[Any, Any]  # a component to its new value


class View:
    """The page of one project; each method gives the updates for one state."""

    def __init__(self, services: Services, parts: Parts, acts: Acts) -> None:
        self._services = services
        self._parts = parts
        self._acts = acts

    def item(
        self, person: Person, view: TaskView, says: str, earlier: Earlier | None, done: str, highlight: bool
    ) -> Updates:
        """An item to judge; with what was said of it before when it was taken back."""
        parts, is_pair = self._parts, view.kind == "pair"
        before = self._acts.find(earlier) if earlier else None
        before_id = before.elem_id if before else ""
        has_detail = earlier is not None and bool(
            self._chips(earlier) or earlier.comment or earlier.correction
        )
        written = (earlier.correction if earlier else None) or ""
        selected = before_id if has_detail else ""
        return {
            parts.kind: view.kind,
            parts.task_id: view.task_id,
            parts.stage: reveal(True, *([] if is_pair else ["single"])),
            parts.empty: reveal(False),
            parts.guide: gr.update(elem_classes=[]),
            parts.vote_bar: reveal(True),
            parts.history: write_history(view.messages[:-1]),
            parts.prompt: safe_md(view.messages[-1]["content"]),
            parts.heading_a: write_heading("A" if is_pair else ""),
            parts.side_b: reveal(is_pair),
            parts.pair_votes: reveal(is_pair, "votes"),
            parts.single_votes: reveal(not is_pair, "votes"),
            parts.both_bad: gr.update(visible=True if is_pair else "hidden"),
            parts.highlight: gr.update(visible=True if is_pair else "hidden"),
            parts.look_again: gr.update(active=False),
            parts.not_saved: reveal(False),
            **self.answers(view, highlight),
            **self._typed(earlier),
            **self._numbers(person, view.kind, says or _write_editing(earlier)),
            parts.correction: prefill(view, before, written) if before and has_detail else "",
            parts.selected: selected,
            parts.cue: _cue(person, view.task_id, selected, before_id, done, has_detail),
        }

    def answers(self, view: TaskView, highlight: bool) -> Updates:
        """The two texts, their differences marked on request; offered where they are much alike."""
        parts, right = self._parts, view.right
        if right is None:
            return {parts.answer_a: safe_md(view.left), parts.answer_b: "", parts.highlight_offer: ""}
        left_md, right_md = safe_md(view.left), safe_md(right)
        if highlight:
            left_md, right_md = mark_differences(view.left, right)
        offers = not highlight and self._services.annotation.diff_offer_ratio < likeness(view.left, right)
        offer = '<p class="offer">These two are much alike.</p>' if offers else ""
        return {parts.answer_a: left_md, parts.answer_b: right_md, parts.highlight_offer: offer}

    def empty(self, person: Person, kind: TaskKind, says: str, done: str) -> Updates:
        """Nothing left of that kind, or not written yet; looks again by itself."""
        parts, is_writing = self._parts, self._services.writing() == kind
        other: TaskKind = "single" if kind == "pair" else "pair"
        pace, num_ready = self._read_pace(person), count_open_tasks(self._services.store, other)
        return {
            **self._nothing_to_judge(person, done),
            **self._numbers(person, kind, says),
            parts.empty: reveal(True),
            parts.empty_says: write_empty(pace.num_judged, kind, is_writing, person.role),
            parts.other_kind: gr.update(value=write_other_kind(other, num_ready), visible=num_ready > 0),
            parts.guide: gr.update(elem_classes=[]),
            parts.look_again: gr.update(value=LOOK_SOON_S if is_writing else LOOK_AGAIN_S, active=True),
        }

    def guidelines(self, person: Person, kind: TaskKind, done: str) -> Updates:
        """The guidelines in place of an item, until they are accepted."""
        parts = self._parts
        return {
            **self._nothing_to_judge(person, done),
            **self._numbers(person, kind, ""),
            **self.guide(is_new=True),
            parts.empty: reveal(False),
            parts.guide: gr.update(elem_classes=["welcome"]),
            parts.look_again: gr.update(active=False),
        }

    def guide(self, is_new: bool) -> Updates:
        """The text of the guidelines that hold."""
        version, text = read_guidelines(self._services.store)
        return {
            self._parts.guide_head: write_guide_head(version, is_new),
            self._parts.guide_text: safe_md(text),
            self._parts.guide_version: version,
        }

    def selected(self, person: Person, view: TaskView, act: Act, correction: str) -> Updates:
        """A choice that waits for Enter, and the preferred answer in the edit box."""
        parts = self._parts
        return {
            parts.selected: act.elem_id,
            parts.correction: prefill(view, act, correction),
            parts.not_saved: reveal(False),
            parts.cue: _cue(person, view.task_id, act.elem_id),
        }

    def restored(self, person: Person, draft: Draft, act: Act | None) -> Updates:
        """A draft on its item again; a choice that was pressed but not saved is offered once more."""
        parts = self._parts
        selected = act.elem_id if act else ""
        shown = {
            parts.reasons: draft.reasons,
            parts.comment: draft.comment,
            parts.correction: draft.correction,
            parts.unsafe_a: draft.unsafe_a,
            parts.unsafe_b: draft.unsafe_b,
            parts.selected: selected,
            parts.cue: _cue(person, draft.task_id, selected, detail=True if draft.has_detail else None),
        }
        if act is None:
            return shown
        return shown | self.not_saved(f"Not saved: {act.label}. It was kept in this browser.")

    def not_saved(self, says: str) -> Updates:
        """The red banner; the item and everything typed stay."""
        parts = self._parts
        return {
            parts.not_saved: reveal(True),
            parts.not_saved_says: f'<p role="alert">{plain(says)}</p>',
        }

    def not_saved_choice(self, person: Person, task_id: str, act: Act, says: str) -> Updates:
        """The red banner over a choice that stays marked; Retry repeats it."""
        cue = _cue(person, task_id, act.elem_id)
        return self.not_saved(says) | {self._parts.selected: act.elem_id, self._parts.cue: cue}

    def says(self, person: Person, kind: TaskKind, says: str) -> Updates:
        """One sentence beside the numbers."""
        return self._numbers(person, kind, plain(says))

    def _nothing_to_judge(self, person: Person, done: str) -> Updates:
        parts = self._parts
        return {
            parts.task_id: "",
            parts.stage: reveal(False),
            parts.vote_bar: reveal(False),
            parts.not_saved: reveal(False),
            parts.selected: "",
            **self._typed(None),
            parts.cue: _cue(person, "", "", "", done, False),
        }

    def _typed(self, earlier: Earlier | None) -> Updates:
        parts = self._parts
        return {
            parts.reasons: self._chips(earlier),
            parts.comment: earlier.comment if earlier else "",
            parts.correction: "",
            parts.unsafe_a: bool(earlier and "left" in earlier.unsafe),
            parts.unsafe_b: bool(earlier and "right" in earlier.unsafe),
        }

    def _chips(self, earlier: Earlier | None) -> list[str]:
        known = self._services.annotation.reasons
        return [reason for reason in (earlier.reasons if earlier else ()) if reason in known]

    def _numbers(self, person: Person, kind: TaskKind, says: str) -> Updates:
        store, pace = self._services.store, self._read_pace(person)
        num_ready = count_open_tasks(store, kind)
        is_training = running_round(store) is not None
        return {
            self._parts.status: write_status(pace, num_ready, says),
            self._parts.notices: write_notices(is_training, num_ready, self._minutes_at_work(pace)),
        }

    def _minutes_at_work(self, pace: Pace) -> float | None:
        """How long without a pause, once that is worth a word."""
        limit = self._services.annotation.break_after_minutes
        if pace.since is None or not limit:
            return None
        minutes = (datetime.now(UTC) - pace.since).total_seconds() / 60.0
        return minutes if minutes >= limit else None

    def _read_pace(self, person: Person) -> Pace:
        now = datetime.now(UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return read_pace(self._services.store, person.person_id, midnight, now)


def prefill(view: TaskView, act: Act, correction: str) -> str:
    """The edit box after choosing: the preferred answer's text, unless they have typed their own."""
    is_own = correction.strip() not in ("", view.left.strip(), (view.right or "").strip())
    if is_own:
        return correction
    if act.choice not in CORRECTABLE:
        return ""
    return (view.right or "") if act.choice == "right" else view.left


def _write_editing(earlier: Earlier | None) -> str:
    return f"Editing answer from {write_time(earlier.created_at)}" if earlier else ""


def _cue(
    person: Person,
    task_id: str,
    selected: str,
    before: str | None = None,
    done: str = "",
    detail: bool | None = None,
) -> str:
    return Cue(person.person_id, task_id, selected, before, done, detail).write()
