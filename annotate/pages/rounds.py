"""The admin page's part about rounds: the one that runs, why the next does or does not start, the gate."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import gradio as gr
import pandas as pd

from annotate.auth import require
from annotate.pages.faults import explain
from annotate.pages.panels import (
    Row,
    say,
    write_gate,
    write_log,
    write_round,
    write_rounds,
    write_why,
)
from annotate.pages.showing import GONE, reveal
from annotate.services import Services
from store.records import RUNNING_STATES, Round
from store.rounds import read_rounds, running_round

LOG_LINES = 50
CURVES = {"loss": "loss", "rewards/accuracies": "accuracy", "rewards/margins": "margin"}
COLOURS = {"loss": "#6366f1", "accuracy": "#0d9488", "margin": "#d97706"}


class RoundSection:
    """Lays itself out where it is made; `read` gives what changes by itself."""

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Row(elem_classes=["two"]):
            with gr.Column(elem_classes=["card"]):
                gr.HTML("<h2>Current round</h2>", js_on_load=None)
                self._progress = gr.HTML("", js_on_load=None, elem_id="progress")
                # Hidden by its column: the plot itself fails in the browser when it is itself hidden.
                with gr.Column(elem_classes=[GONE]) as self._curves:
                    self._plot = _plot()
                self._cancel = gr.Button(
                    "Cancel round", variant="stop", size="md", visible="hidden", elem_id="cancel"
                )
            with gr.Column(elem_classes=["card"]):
                gr.HTML("<h2>Next training</h2>", js_on_load=None)
                self._why = gr.HTML("", js_on_load=None, elem_id="why")
                self._train = gr.Button("Train now", variant="primary", size="md", elem_id="train-now")
                self._says = gr.HTML("", js_on_load=None, elem_id="round-says")
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Gate of the newest round</h2>", js_on_load=None)
            self._gate = gr.HTML("", js_on_load=None, elem_id="gate")
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Rounds</h2>", js_on_load=None)
            self._rounds = gr.HTML("", js_on_load=None, elem_id="rounds")
            with gr.Accordion("Log of the newest round", open=False, elem_id="log-panel"):
                self._log = gr.HTML("", js_on_load=None, elem_id="log")
        self.drawn = gr.Textbox(visible="hidden", elem_id="drawn", label="Curves drawn so far")
        self.outputs = [
            self._progress, self._curves, self._plot, self._cancel, self._why, self._train, self._gate,
            self._rounds, self._log, self.drawn,
        ]  # fmt: skip

    def wire(self, quietly: dict[str, Any]) -> None:
        """Bind the two buttons."""
        self._train.click(self.train_now, None, [self._says, *self.outputs], **quietly)
        self._cancel.click(self.cancel, None, [self._says, *self.outputs], **quietly)

    def read(self, drawn: str = "") -> dict[Any, Any]:
        """Everything about rounds as it is now; the curves only when they are not those already `drawn`."""
        rounds = read_rounds(self._services.store, limit=20)
        newest = rounds[0] if rounds else None
        progress: Sequence[Row] = self._services.read_progress(newest.round_id) if newest else []
        is_running = newest is not None and newest.state in RUNNING_STATES
        return {
            self._progress: write_round(newest, progress, datetime.now(UTC)),
            self._cancel: gr.update(visible=True if is_running else "hidden"),
            self._train: gr.update(interactive=not is_running),
            self._why: write_why(self._services.explain_round()),
            self._gate: self._read_gate(rounds),
            self._rounds: write_rounds(rounds),
            self._log: write_log(self._services.read_log(newest.round_id, LOG_LINES) if newest else []),
            **self._draw(newest, progress, drawn),
        }

    def train_now(self, request: gr.Request) -> dict[Any, Any]:
        """Start a round by hand."""
        try:
            person = require(request.request, "admin")
            started = self._services.start_round(person.name)
            return self.read() | {self._says: say(f"Round {started.round_id} started.")}
        except Exception as error:
            return {self._says: say(explain(error, "start a round"), is_bad=True)}

    def cancel(self, request: gr.Request) -> dict[Any, Any]:
        """Stop the round that runs."""
        try:
            person = require(request.request, "admin")
            running = running_round(self._services.store)
            if running is None:
                return self.read() | {self._says: say("No round is running.")}
            self._services.cancel_round(running.round_id, person.name)
            return self.read() | {self._says: say(f"Round {running.round_id} is being cancelled.")}
        except Exception as error:
            return {self._says: say(explain(error, "cancel this round"), is_bad=True)}

    def _read_gate(self, rounds: Sequence[Round]) -> str:
        for each in rounds:
            gate = self._services.read_gate(each.round_id)
            if gate is not None:
                return write_gate(each.round_id, gate)
        return write_gate("", None)

    def _draw(self, newest: Round | None, progress: Sequence[Row], drawn: str) -> dict[Any, Any]:
        points = list_points(progress)
        drawing = f"{newest.round_id}:{len(points)}" if newest else ""
        if drawing == drawn:
            return {}
        update: dict[Any, Any] = {self._curves: reveal(bool(points)), self.drawn: drawing}
        if points:  # a plot that is given nothing, or an empty frame first, fails or stays blank for ever
            update[self._plot] = pd.DataFrame(points, columns=["step", "value", "metric"])
        return update


def _plot() -> Any:
    return gr.LinePlot(
        None, x="step", y="value", color="metric", color_map=COLOURS, x_axis_format="d", y_title=" ",
        color_title=" ", height=220, buttons=[], show_label=False, container=False, elem_id="curves",
    )  # fmt: skip


def list_points(progress: Sequence[Row]) -> list[tuple[int, float, str]]:
    """(step, value, curve) of every number to draw; stages follow one another on the same axis."""
    points: list[tuple[int, float, str]] = []
    offset, last, stage = 0, 0, None
    for row in progress:
        step = row.get("step")
        if not isinstance(step, int):
            continue
        if row.get("stage") != stage:
            offset, stage = last, row.get("stage")
        last = offset + step
        for key, curve in CURVES.items():
            value = row.get(key)
            if isinstance(value, int | float):
                points.append((last, float(value), curve))
    return points
