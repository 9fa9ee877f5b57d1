"""The part of the Data tab about synthetic pairs: two system prompts, how many prompts, how far it is."""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.pages.admin.acting import QUIETLY, Update, acting
from annotate.pages.admin.panels.pieces import note, say
from annotate.pages.admin.panels.sources import write_synthetic
from annotate.services import Services
from annotate.synthetic import MOST_SYSTEM_CHARS, SyntheticOrder

MEANING = (
    "The live version answers prompts under a good and a bad system prompt; the good answer is the"
    " chosen one. They are a source of their own and can be dropped as a whole."
)


class SyntheticSection:
    """Lays itself out where it is made; the numbers follow the making."""

    is_polled = True

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML(f"<h2>Synthetic pairs</h2>{note(MEANING)}", js_on_load=None)
            self._status = gr.HTML("", js_on_load=None, elem_id="synthetic")
            with gr.Row(elem_classes=["fields"]):
                self._good = _system_prompt("The good system prompt", "synthetic-good")
                self._bad = _system_prompt("The bad system prompt", "synthetic-bad")
            with gr.Row(elem_classes=["buttons"]):
                self._name = gr.Textbox(
                    label="Name of the source", max_length=64, placeholder="e.g. polite",
                    elem_id="synthetic-name",
                )  # fmt: skip
                self._num = gr.Number(50, label="Prompts", minimum=1, precision=0, elem_id="synthetic-num")
                self._start = gr.Button("Make pairs", size="md", elem_id="synthetic-start")
                self._cancel = gr.Button("Stop", size="md", elem_id="synthetic-cancel")
            self.says = gr.HTML("", js_on_load=None, elem_id="synthetic-says")
        self.seen: list[Any] = []
        self.outputs = [self._status]

    def wire(self) -> None:
        """Bind the buttons."""
        told = [self.says, *self.outputs]
        self._start.click(self.start, [self._name, self._good, self._bad, self._num], told, **QUIETLY)
        self._cancel.click(self.cancel, None, told, **QUIETLY)

    def read(self) -> Update:
        """How far the newest order is."""
        return {self._status: write_synthetic(self._services.synthetic.read_run())}

    @acting("make synthetic pairs")
    def start(self, name: str, good: str, bad: str, num: float | None, request: gr.Request) -> Update:  # noqa: ARG002
        """Begin in the background."""
        run = self._services.synthetic.start(SyntheticOrder(name.strip(), good, bad, int(num or 0)))
        return self.read() | {self.says: say(f"{run.source} is being made from {run.prompts} prompts.")}

    @acting("stop making pairs")
    def cancel(self, request: gr.Request) -> Update:  # noqa: ARG002
        """Ask nothing more; what was made stays."""
        self._services.synthetic.cancel()
        return self.read() | {self.says: say("Nothing more is asked; drop the source to take the pairs out.")}


def _system_prompt(label: str, elem_id: str) -> Any:
    return gr.Textbox(label=label, lines=2, max_length=MOST_SYSTEM_CHARS, elem_id=elem_id)
