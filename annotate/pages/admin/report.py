"""The part of the Data tab that looks at all labels as training data: findings and three plots.

The report reads every label, so it is made when asked for; a small store's is made when the tab opens.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
import pandas as pd

from annotate.pages.admin.acting import SLOWLY, Update, acting
from annotate.pages.admin.panels.pieces import note, say
from annotate.pages.admin.panels.report import write_report
from annotate.pages.showing import GONE, reveal
from annotate.services import Services
from store.data_report import SIMILARITY_BINS, DataReport, report_on_store
from store.snapshots import count_labels

SMALL = 1000  # labels; the report on so many takes about half a second
FROM_ZERO = [0, None]  # or bars would begin at the smallest value


class ReportSection:
    """Lays itself out where it is made."""

    is_polled = False

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Data report</h2>", js_on_load=None)
            self._report = gr.HTML("", js_on_load=None, elem_id="report")
            with gr.Row(elem_classes=["buttons"]):
                self._make = gr.Button("Make the report", size="md", elem_id="report-make")
            self.says = gr.HTML("", js_on_load=None, elem_id="report-says")
            # Hidden by its row: a plot that is itself hidden, or first given nothing, stays blank.
            with gr.Row(elem_classes=["plots", GONE]) as self._plots:
                self._lengths = _plot(
                    gr.ScatterPlot, "Length of chosen against rejected", "rejected words", "chosen words"
                )
                self._similarity = _plot(
                    gr.BarPlot, "How alike the two answers are", "similarity", "pairs", y_lim=FROM_ZERO
                )
                self._days = _plot(
                    gr.BarPlot,
                    "Labels a day",
                    "day",
                    "labels",
                    x_bin="1d",
                    y_aggregate="sum",
                    y_lim=FROM_ZERO,
                )
        self.seen: list[Any] = []
        self.outputs = [self._report, self._plots, self._lengths, self._similarity, self._days]

    def wire(self) -> None:
        """Bind the button."""
        self._make.click(self.make, None, [self.says, *self.outputs], **SLOWLY)

    def read(self) -> Update:
        """The report when it is quick to make, else what to press."""
        many = count_labels(self._services.store).total
        if not many:
            told = "No labels yet: the report says what would spoil training once there are some."
            return {self._report: note(told)}
        if many > SMALL:
            told = f"The report reads all {many:,} labels, which takes a while: press the button."
            return {self._report: note(told)}
        return self._show(report_on_store(self._services.store))

    @acting("make the report")
    def make(self, request: gr.Request) -> Update:  # noqa: ARG002
        """The report on every label there is."""
        return self._show(report_on_store(self._services.store)) | {self.says: say("This is how it stands.")}

    def _show(self, report: DataReport) -> Update:
        update: Update = {self._report: write_report(report), self._plots: reveal(True, "plots")}
        if report.lengths:
            update[self._lengths] = pd.DataFrame(
                [(rejected, chosen) for chosen, rejected in report.lengths],
                columns=["rejected words", "chosen words"],
            )
            bins = [number / SIMILARITY_BINS for number in range(SIMILARITY_BINS)]
            update[self._similarity] = pd.DataFrame({"similarity": bins, "pairs": report.similarity})
        if report.labels_per_day:
            days = pd.DataFrame(report.labels_per_day, columns=["day", "labels"])
            update[self._days] = days.assign(day=pd.to_datetime(days["day"]))
        return update


def _plot(kind: Any, title: str, x: str, y: str, **more: Any) -> Any:
    return kind(
        None, x=x, y=y, title=title, height=240, buttons=[], show_label=False, container=False, min_width=260,
        elem_id=f"plot-{y.split()[0]}", **more,
    )  # fmt: skip
