"""The part of the Data tab about labels nobody gave here: counts by source, and dropping a source."""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.api.sources import refuse_while_filling
from annotate.pages.admin.acting import QUIETLY, Update, acting, admin
from annotate.pages.admin.asking import Question
from annotate.pages.admin.panels.pieces import count, say
from annotate.pages.admin.panels.sources import write_sources
from annotate.services import Services
from store.errors import BadValue
from store.outside import count_outside_labels, drop_outside_labels


class SourceSection:
    """Lays itself out where it is made; dropping asks first."""

    is_polled = False

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Outside sources</h2>", js_on_load=None)
            self._table = gr.HTML("", js_on_load=None, elem_id="sources")
            with gr.Row(elem_classes=["buttons"]):
                self._pick = gr.Dropdown([], label="Source", filterable=False, elem_id="source-pick")
                self._drop = gr.Button("Drop this source…", size="md", elem_id="source-drop")
                self._refresh = gr.Button("Refresh", size="md", elem_id="data-refresh")
            self._ask = Question("source-drop", "Drop every label of it", "Keep it")
            self.says = gr.HTML("", js_on_load=None, elem_id="source-says")
        self.seen: list[Any] = []
        self.outputs = [self._table, self._pick]

    def wire(self) -> None:
        """Bind the buttons."""
        told = [self.says, *self.outputs, *self._ask.outputs]
        self._drop.click(self.ask, [self._pick], told, **QUIETLY)
        self._refresh.click(self.refresh, None, told, **QUIETLY)
        self._ask.wire(self.drop, told)

    def read(self) -> Update:
        """Counts by source."""
        sources = count_outside_labels(self._services.store)
        return {self._table: write_sources(sources), self._pick: gr.update(choices=list(sources))}

    @acting("read the sources")
    def refresh(self, request: gr.Request) -> Update:  # noqa: ARG002
        """Read them again."""
        return self.read()

    @acting("drop this source")
    def ask(self, source: str | None, request: gr.Request) -> Update:  # noqa: ARG002
        """Open the row that says how many labels would go."""
        if not source:
            raise BadValue("pick a source first")
        many = count_outside_labels(self._services.store).get(source, 0)
        sentence = (
            f"Drop {count(many, 'label')} of {source}? Later rounds do without them; to have them again,"
            " import or make them again. Versions trained on them do not change."
        )
        return {self.says: ""} | self._ask.ask(sentence, source)

    @acting("drop this source")
    def drop(self, source: str, request: gr.Request) -> Update:
        """Take every label of the source out."""
        refuse_while_filling(self._services, source)
        many = drop_outside_labels(self._services.store, source, admin(request).name)
        told = say(f"{count(many, 'label')} of {source} dropped.")
        return self._ask.close() | self.read() | {self._pick: None, self.says: told}
