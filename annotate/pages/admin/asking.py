"""An inline row that asks before an act is done: what will happen, yes, no, and a reason if one is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from annotate.pages.admin.acting import QUIETLY, SLOWLY, Update, acting
from annotate.pages.admin.panels.pieces import say
from annotate.pages.showing import GONE, reveal


class Question:
    """Hidden until `ask`; what it is about waits in a hidden box and is checked again when it is answered.

    `extra` lays out more fields between the sentence and the buttons and returns them.
    """

    def __init__(
        self, name: str, yes: str, no: str = "Leave as it is", extra: Callable[[], list[Any]] = list
    ) -> None:
        with gr.Column(elem_id=f"{name}-row", elem_classes=["confirm", GONE]) as self._row:
            self._sentence = gr.HTML("", js_on_load=None)
            self._target = gr.Textbox(visible="hidden", elem_id=f"{name}-target", label="What this is about")
            self._extra = extra()
            with gr.Row(elem_classes=["buttons"]):
                self._yes = gr.Button(yes, variant="stop", size="md", elem_id=f"{name}-confirm")
                self._no = gr.Button(no, size="md", elem_id=f"{name}-keep")
            self.says = gr.HTML("", js_on_load=None)
        self.outputs = [self._row, self._sentence, self._target, self.says]

    def wire(self, answer: Callable[..., Update], outputs: list[Any], given: Sequence[Any] = ()) -> None:
        """On yes call `answer(target, *extra, *given, request)`, which closes the row; on no close it."""
        known = [*dict.fromkeys([*self.outputs, *outputs])]
        self._yes.click(answer, [self._target, *self._extra, *given], known, **SLOWLY)
        self._no.click(self.keep, None, self.outputs, **QUIETLY)

    def ask(self, sentence: str, target: str) -> Update:
        """Open the row."""
        return {
            self._row: reveal(True, "confirm"),
            self._sentence: say(sentence),
            self._target: target,
            self.says: "",
        }

    def close(self) -> Update:
        """Close the row and forget what it was about."""
        return {self._row: reveal(False, "confirm"), self._target: "", self.says: ""}

    @acting("close this")
    def keep(self, request: gr.Request) -> Update:  # noqa: ARG002
        """Close the row without an act."""
        return self.close()
