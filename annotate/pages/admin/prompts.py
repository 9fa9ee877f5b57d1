"""The part of the Data tab about prompts: what is to be answered, one prompt a line."""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.pages.admin.acting import SLOWLY, Update, acting
from annotate.pages.admin.panels.pieces import count, note, say
from annotate.services import Services
from store.errors import BadValue
from store.prompts import NewPrompt, add_prompts, count_prompts


class PromptSection:
    """Lays itself out where it is made."""

    is_polled = False

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Prompts</h2>", js_on_load=None)
            self._count = gr.HTML("", js_on_load=None, elem_id="prompt-count")
            self._prompts = gr.Textbox(
                label="One prompt per line", lines=4, max_lines=12, max_length=200_000, elem_id="prompts-text"
            )
            with gr.Row(elem_classes=["buttons"]):
                self._add = gr.Button("Add prompts", size="md", elem_id="prompts-add")
            self.says = gr.HTML("", js_on_load=None, elem_id="prompts-says")
        self.seen: list[Any] = []
        self.outputs = [self._count]

    def wire(self) -> None:
        """Bind the button."""
        self._add.click(self.add, [self._prompts], [self.says, self._prompts, self._count], **SLOWLY)

    def read(self) -> Update:
        """How many there are."""
        known = count_prompts(self._services.store)
        told = f"{count(known, 'prompt')} in the store."
        return {self._count: note(told if known else "No prompts yet: add some, and the model answers them.")}

    @acting("add these prompts")
    def add(self, text: str, request: gr.Request) -> Update:  # noqa: ARG002
        """Add one prompt a line; those already known are counted, not doubled."""
        added = add_prompts(self._services.store, _split(text), source="admin page")
        told = say(f"{added.added} added, {added.known} already known.")
        return {self.says: told, self._prompts: ""} | self.read()


def _split(text: str) -> list[NewPrompt]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise BadValue("write at least one prompt, each on its own line")
    return [NewPrompt(messages=({"role": "user", "content": line},), tags=()) for line in lines]
