"""The panel about serving: which versions are in memory, how fast they answer, what the engine holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import gradio as gr

from annotate.pages.admin.acting import Update
from annotate.pages.admin.panels.serving import write_serving
from annotate.services import Services
from store.policies import count_promotions, live_version, read_policies


class ServingSection:
    """Lays itself out where it is made; `read` gives what changes by itself."""

    is_polled = True

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Serving</h2>", js_on_load=None)
            self._panel = gr.HTML("", js_on_load=None, elem_id="serving")
        self.seen: list[Any] = []
        self.outputs = [self._panel]

    def wire(self) -> None:
        """There is nothing to press."""

    def read(self) -> Update:
        """The engine's figures as they are now."""
        store = self._services.store
        midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        states = {policy.version: policy.state for policy in read_policies(store)}
        swaps_today = count_promotions(store, midnight)
        stats = self._services.engine_stats()
        return {self._panel: write_serving(stats, live_version(store), states, swaps_today)}
