"""The tab about rounds: the list, and of the one picked its curves, its gate and its log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import gradio as gr

from annotate.pages.admin.acting import QUIETLY, Update, acting
from annotate.pages.admin.panels.rounds import Row, write_gate, write_log, write_round, write_rounds
from annotate.services import Services
from store.errors import NotFound
from store.records import Round
from store.rounds import read_rounds

LOG_LINES = 50
NEWEST = "newest"


class RoundSection:
    """Lays itself out where it is made; `read` gives what changes by itself."""

    is_polled = True

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Rounds</h2>", js_on_load=None)
            self._rounds = gr.HTML("", js_on_load=None, elem_id="rounds")
        with gr.Column(elem_classes=["card"]):
            self._pick = gr.Dropdown(
                [("The newest round", NEWEST)], value=NEWEST, label="Look at", filterable=False,
                elem_id="round-pick",
            )  # fmt: skip
            self._progress = gr.HTML("", js_on_load=None, elem_id="round-progress")
            self._curves = gr.HTML("", js_on_load=None, elem_id="curves")
            gr.HTML("<h2>Gate</h2>", js_on_load=None)
            self._gate = gr.HTML("", js_on_load=None, elem_id="gate")
            with gr.Accordion("Log", open=False, elem_id="log-panel"):
                self._log = gr.HTML("", js_on_load=None, elem_id="log")
            self.says = gr.HTML("", js_on_load=None, elem_id="rounds-says")
        self._drawn = gr.Textbox(visible="hidden", elem_id="drawn", label="Curves drawn so far")
        self._listed = gr.Textbox(visible="hidden", elem_id="rounds-listed", label="Rounds listed")
        self.seen = [self._pick, self._drawn, self._listed]
        self.outputs = [
            self._rounds, self._pick, self._progress, self._curves, self._gate, self._log, self._drawn,
            self._listed,
        ]  # fmt: skip

    def wire(self) -> None:
        """Show another round as soon as it is picked."""
        self._pick.input(self.show, [self._pick], [self.says, *self.outputs], **QUIETLY)

    @acting("show this round")
    def show(self, picked: str, request: gr.Request) -> Update:  # noqa: ARG002
        """The picked round."""
        return {self.says: ""} | self.read(picked)

    def read(self, picked: str = NEWEST, drawn: str = "", listed: str = "") -> Update:
        """Every round, and the picked one; curves and list only when they are not `drawn` and `listed`."""
        rounds = read_rounds(self._services.store, limit=50)
        shown = _find(rounds, picked)
        progress: Sequence[Row] = self._services.read_progress(shown.round_id) if shown else []
        gate = self._services.read_gate(shown.round_id) if shown else None
        update: Update = {
            self._rounds: write_rounds(rounds),
            self._progress: write_round(shown, progress, datetime.now(UTC)),
            self._gate: write_gate(shown.round_id if shown else "", gate),
            self._log: write_log(self._services.read_log(shown.round_id, LOG_LINES) if shown else []),
            **self._draw(shown, progress, drawn),
        }
        signature = ",".join(f"{each.round_id} {each.state}" for each in rounds)
        if signature != listed:
            choices = [(f"{each.round_id} · {each.state}", each.round_id) for each in rounds]
            update[self._pick] = gr.update(choices=[("The newest round", NEWEST), *choices])
            update[self._listed] = signature
        return update

    def _draw(self, shown: Round | None, progress: Sequence[Row], drawn: str) -> Update:
        """The curves, when something was logged, or the round ended, since they were drawn."""
        # A half per cent more of a long training is not to be seen, and drawing it anew would cost the same.
        seen = len(progress) - len(progress) % max(len(progress) // 200, 1)
        drawing = f"{shown.round_id}:{shown.state}:{seen}" if shown else ""
        if drawing == drawn:
            return {}
        curves = self._services.draw_curves(shown.round_id) if shown else ""
        return {self._curves: curves, self._drawn: drawing}


def _find(rounds: Sequence[Round], picked: str) -> Round | None:
    if not picked or picked == NEWEST:
        return rounds[0] if rounds else None
    found = next((each for each in rounds if each.round_id == picked), None)
    if found is None:
        raise NotFound(f"round {picked!r} is not among the newest {len(rounds)}; pick another")
    return found
