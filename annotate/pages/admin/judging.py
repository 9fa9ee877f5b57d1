"""The part of the Data tab about the AI judge: how far it agrees with people, what it may spend, a run."""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.pages.admin.acting import QUIETLY, Update, acting
from annotate.pages.admin.panels.pieces import note, say
from annotate.pages.admin.panels.sources import write_judge
from annotate.services import Services
from store.errors import BadValue

MEANING = (
    "Each pair is asked in both orders, and a flip is a tie. Its labels are a source of their own, never"
    " taken for a person's; they are used in rounds only above the agreement set."
)


class JudgeSection:
    """Lays itself out where it is made; the numbers follow a run."""

    is_polled = True

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML(f"<h2>AI judge</h2>{note(MEANING)}", js_on_load=None)
            self._status = gr.HTML("", js_on_load=None, elem_id="judge")
            with gr.Row(elem_classes=["buttons"], visible=services.judge is not None):
                self._limit = gr.Number(100, label="Pairs", minimum=1, precision=0, elem_id="judge-limit")
                self._run = gr.Button("Let it judge", size="md", elem_id="judge-run")
                self._cancel = gr.Button("Stop", size="md", elem_id="judge-cancel")
            self.says = gr.HTML("", js_on_load=None, elem_id="judge-says")
        self.seen: list[Any] = []
        self.outputs = [self._status]

    def wire(self) -> None:
        """Bind the buttons."""
        told = [self.says, *self.outputs]
        self._run.click(self.run, [self._limit], told, **QUIETLY)
        self._cancel.click(self.cancel, None, told, **QUIETLY)

    def read(self) -> Update:
        """Agreement, budget and the newest run; cheap while no judge is set up."""
        judge = self._services.judge
        return {self._status: write_judge(judge.read_status() if judge else None)}

    @acting("start the judge")
    def run(self, limit: float | None, request: gr.Request) -> Update:  # noqa: ARG002
        """Judge that many pairs in the background."""
        if self._services.judge is None:
            raise BadValue("no judge is set up; start with --judge.url and --judge.model")
        begun = self._services.judge.start(int(limit or 0))
        return self.read() | {self.says: say(f"The judge has begun with {begun.pairs} pairs.")}

    @acting("stop the judge")
    def cancel(self, request: gr.Request) -> Update:  # noqa: ARG002
        """Begin no other pair."""
        if self._services.judge is None:
            raise BadValue("no judge is set up; start with --judge.url and --judge.model")
        self._services.judge.cancel()
        return self.read() | {self.says: say("No other pair is begun.")}
