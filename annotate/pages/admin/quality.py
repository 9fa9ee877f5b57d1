"""The part of the Quality tab with the numbers: agreement, bias, everybody's figures, labels a day."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pandas as pd

from annotate.pages.admin.acting import SLOWLY, Update, acting
from annotate.pages.admin.panels.quality import write_agreement, write_people, write_queue
from annotate.pages.showing import GONE, reveal
from annotate.services import Services
from store.activity import count_by_day
from store.quality import read_quality
from store.tasks import count_off_policy

COLOURS = {"judgements": "#6366f1", "thumbs": "#0d9488", "outside labels": "#d97706"}


class QualitySection:
    """Lays itself out where it is made; computed when the tab opens and when asked again."""

    is_polled = False

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Agreement</h2>", js_on_load=None)
            self._agreement = gr.HTML("", js_on_load=None, elem_id="agreement")
            self._queue = gr.HTML("", js_on_load=None, elem_id="queue-order")
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>People</h2>", js_on_load=None)
            self._people = gr.HTML("", js_on_load=None, elem_id="quality-people")
            with gr.Row(elem_classes=["buttons"]):
                self._again = gr.Button("Read again", size="md", elem_id="quality-again")
            self.says = gr.HTML("", js_on_load=None, elem_id="quality-says")
        with gr.Column(elem_classes=["card", GONE]) as self._days:
            gr.HTML("<h2>Labels a day</h2>", js_on_load=None)
            self._plot = gr.BarPlot(
                None, x="day", y="labels", color="sort", color_map=COLOURS, y_title=" ", x_title=" ",
                color_title=" ", x_bin="1d", y_aggregate="sum", height=220, buttons=[], show_label=False,
                container=False, elem_id="quality-days",
            )  # fmt: skip
        self.seen: list[Any] = []
        self.outputs = [self._agreement, self._queue, self._people, self._days, self._plot]

    def wire(self) -> None:
        """Bind the button."""
        self._again.click(self.again, None, [self.says, *self.outputs], **SLOWLY)

    def read(self) -> Update:
        """Everything, as the labels are now."""
        store = self._services.store
        quality = read_quality(store, self._services.quality)
        update: Update = {
            self._agreement: write_agreement(quality),
            self._queue: write_queue(store.queue.settings, *count_off_policy(store)),
            self._people: write_people(quality.people),
        }
        days = count_by_day(store)
        if days:  # a plot that is first given nothing stays blank for ever
            frame = pd.DataFrame(days, columns=["day", "sort", "labels"])
            update[self._plot] = frame.assign(day=pd.to_datetime(frame["day"]))
            update[self._days] = reveal(True, "card")
        return update

    @acting("read the numbers")
    def again(self, request: gr.Request) -> Update:  # noqa: ARG002
        """Read everything again."""
        return self.read() | {self.says: ""}
