"""The part of the Quality tab where an admin decides what people could not agree on, blind and by key.

Sides are drawn for the admin as for any annotator; the votes are counts without names. The verdict supersedes
the votes and can be taken back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from annotate.blinding import draw_left
from annotate.pages.admin.acting import QUIETLY, Update, acting, admin
from annotate.pages.admin.panels.disputed import write_none, write_votes
from annotate.pages.admin.panels.pieces import say
from annotate.pages.admin.verdict_keys import PAIR_VERDICTS, SINGLE_VERDICTS, lay_out_keys
from annotate.pages.showing import GONE, reveal
from annotate.pages.text import safe_md
from annotate.services import Services
from store.adjudications import (
    Waiting,
    describe_disputed,
    find_disputed,
    read_task_to_decide,
    save_adjudication,
)
from store.errors import BadValue
from store.gold import set_gold
from store.records import Choice
from store.shown import read_shown_task


class DisputedSection:
    """Lays itself out where it is made; one task at a time."""

    is_polled = False

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"], elem_id="disputed"):
            gr.HTML("<h2>Disputed tasks</h2>", js_on_load=None)
            self._votes = gr.HTML("", js_on_load=None, elem_id="disputed-votes")
            with gr.Column(elem_classes=[GONE]) as self._task:
                self._lay_out_task()
            with gr.Row(elem_classes=["buttons"]):
                self._undo = gr.Button(
                    "Take the last verdict back", size="md", visible="hidden", elem_id="verdict-undo"
                )
            self.says = gr.HTML("", js_on_load=None, elem_id="disputed-says")
        self._task_id = gr.Textbox(visible="hidden", elem_id="disputed-id", label="Task shown")
        self._passed = gr.Textbox(visible="hidden", elem_id="disputed-passed", label="Tasks passed over")
        self._last = gr.Textbox(visible="hidden", elem_id="disputed-last", label="Last task decided")
        self.seen: list[Any] = []
        self.outputs = [
            self._votes, self._task, self._asked, self._left, self._right, self._second, self._pair,
            self._single, self._task_id, self._passed, self._comment, self._undo, self._last,
        ]  # fmt: skip

    def _lay_out_task(self) -> None:
        self._asked = gr.Markdown("", elem_id="disputed-asked")
        with gr.Row(elem_classes=["two"]):
            with gr.Column(elem_classes=["card", "answer"]):
                gr.HTML("<p class=label>Answer A</p>", js_on_load=None)
                self._left = gr.Markdown("", elem_id="disputed-a")
            with gr.Column(elem_classes=["card", "answer"]) as self._second:
                gr.HTML("<p class=label>Answer B</p>", js_on_load=None)
                self._right = gr.Markdown("", elem_id="disputed-b")
        with gr.Row(elem_classes=["buttons"]) as self._pair:
            pair = [gr.Button(label, size="md", elem_id=name) for name, label, *_ in PAIR_VERDICTS]
        with gr.Row(elem_classes=["buttons", GONE]) as self._single:
            single = [gr.Button(label, size="md", elem_id=name) for name, label, *_ in SINGLE_VERDICTS]
        self._buttons = [*pair, *single]
        with gr.Row(elem_classes=["buttons"]):
            self._comment = gr.Textbox(label="Why (kept)", max_length=2000, elem_id="verdict-comment")
            self._gold = gr.Checkbox(False, label="Make it gold, too", elem_id="verdict-gold")
            self._next = gr.Button("Next, without a verdict", size="md", elem_id="verdict-next")
        lay_out_keys()

    def wire(self) -> None:
        """Bind a button a verdict, passing over, and taking back."""
        told = [self.says, *self.outputs]
        given = [self._task_id, self._passed, self._comment, self._gold]
        verdicts = (*PAIR_VERDICTS, *SINGLE_VERDICTS)
        for button, (_, _, shown, strength, _) in zip(self._buttons, verdicts, strict=True):
            button.click(self._bind(shown, strength), given, told, **QUIETLY)
        self._next.click(self.pass_over, [self._task_id, self._passed], told, **QUIETLY)
        self._undo.click(self.take_back, [self._last, self._passed], told, **QUIETLY)

    def read(self) -> Update:
        """Start again with the most disputed task; needs no request, so the sides are drawn when shown."""
        return {self._passed: "", **self._show_next("")}

    def _bind(self, shown: str, strength: int) -> Callable[..., Update]:
        def decide(task_id: str, passed: str, comment: str, make_gold: bool, request: gr.Request) -> Update:
            return self.decide(task_id, passed, (shown, strength, comment, make_gold), request)

        return decide

    @acting("save this verdict")
    def decide(
        self, task_id: str, passed: str, verdict: tuple[str, int, str, bool], request: gr.Request
    ) -> Update:
        """Save the verdict and show the next task."""
        shown, strength, comment, make_gold = verdict
        store, judge = self._services.store, admin(request)
        if not task_id:
            raise BadValue("no task is shown; nothing was saved")
        choice, chosen_id, rejected_id = self._read_choice(task_id, shown)
        save_adjudication(
            store, task_id, judge.person_id, choice=choice, chosen_id=chosen_id, rejected_id=rejected_id,
            strength=strength, comment=comment.strip(),
        )  # fmt: skip
        if make_gold:
            set_gold(store, task_id, choice, chosen_id, source="adjudicated")
        told = "Saved, and made gold." if make_gold else "Saved. It holds in place of the votes."
        update = self._show_next(passed) | {self.says: say(told), self._last: task_id, self._comment: ""}
        return update | {self._undo: gr.update(visible=True)}

    @acting("show the next task")
    def pass_over(self, task_id: str, passed: str, request: gr.Request) -> Update:  # noqa: ARG002
        """Leave this task for another time."""
        seen = ",".join(each for each in (passed, task_id) if each)
        return self._show_next(seen) | {self._passed: seen, self.says: "", self._comment: ""}

    @acting("take the verdict back")
    def take_back(self, task_id: str, passed: str, request: gr.Request) -> Update:
        """The votes hold again; gold it was made into stays, and can be dropped below."""
        if not task_id:
            raise BadValue("there is no verdict of this visit to take back")
        save_adjudication(self._services.store, task_id, admin(request).person_id, choice="skip")
        told = say("Taken back: the votes hold again, and the task waits once more.")
        return self._show_next(passed) | {
            self.says: told, self._last: "", self._undo: gr.update(visible="hidden"),
        }  # fmt: skip

    def _read_choice(self, task_id: str, shown: str) -> tuple[Choice, str | None, str | None]:
        task = read_task_to_decide(self._services.store, task_id)
        fitting = PAIR_VERDICTS if task.kind == "pair" else SINGLE_VERDICTS
        if shown not in {each[2] for each in fitting}:
            raise BadValue(f"{shown!r} does not fit a {task.kind}")
        if shown not in ("left", "right"):
            return shown, None, None  # type: ignore[return-value]
        left = draw_left(task, SCREEN)
        (right,) = set(task.completion_ids) - {left}
        return ("prefer", left, right) if shown == "left" else ("prefer", right, left)

    def _show_next(self, passed: str) -> Update:
        over = set(passed.split(","))
        waiting = find_disputed(self._services.store, self._services.quality, limit=len(over) + 1)
        first = next((each for each in waiting if each.task_id not in over), None)
        if first is None:
            nothing = {self._task: reveal(False), self._task_id: ""}
            return nothing | {self._votes: write_none(len(waiting))}
        return self._open(first)

    def _open(self, first: Waiting) -> Update:
        disputed = describe_disputed(self._services.store, first)
        task = disputed.task
        shown = read_shown_task(self._services.store, task.task_id)
        left = draw_left(task, SCREEN)
        right = next((each for each in task.completion_ids if each != left), None)
        is_pair = task.kind == "pair"
        return {
            self._votes: write_votes(disputed, left == task.completion_ids[0], first.total),
            self._task: reveal(True),
            self._asked: "\n\n".join(_write_message(each) for each in shown.messages),
            self._left: safe_md(shown.text_of(left)),
            self._right: safe_md(shown.text_of(right)),
            self._second: reveal(is_pair, "card", "answer"),
            self._pair: reveal(is_pair, "buttons"),
            self._single: reveal(not is_pair, "buttons"),
            self._task_id: task.task_id,
        }


# Sides are drawn as for a person, from the task alone: every admin sees the same, and none can tell which.
SCREEN = "adjudication"


def _write_message(message: Any) -> str:
    said = safe_md(message["content"])
    return said if message["role"] == "user" else f"*{message['role']}:* {said}"
