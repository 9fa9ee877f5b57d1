"""The part of the Versions tab about the canary: put a version on trial, watch both sides, end it."""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.canary import read_trials, require_desk
from annotate.pages.admin.acting import QUIETLY, Update, acting, admin
from annotate.pages.admin.asking import Question
from annotate.pages.admin.panels.canary import write_past_trials, write_trial
from annotate.pages.admin.panels.pieces import say
from annotate.pages.admin.versions import list_choices
from annotate.pages.showing import reveal
from annotate.services import Services
from store.canaries import read_canary
from store.canary_settings import CanarySettings
from store.errors import BadValue
from store.policies import live_version, read_policies, read_policy


class CanarySection:
    """Lays itself out where it is made; the numbers change by themselves. Each act asks first."""

    is_polled = True

    def __init__(self, services: Services) -> None:
        self._services = services
        settings = services.canary.settings if services.canary else CanarySettings()
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Canary</h2>", js_on_load=None)
            self._status = gr.HTML("", js_on_load=None, elem_id="canary")
            with gr.Row(elem_classes=["buttons"], elem_id="canary-begin") as self._begin:
                self._pick = gr.Dropdown(
                    [], label="Version", elem_id="canary-pick", filterable=False, min_width=160
                )
                self._share = gr.Number(
                    settings.share * 100, label="Share, %", minimum=0.1, maximum=99, elem_id="canary-share"
                )
                self._start = gr.Button("Try it…", size="md", elem_id="canary-start")
            with gr.Row(elem_classes=["buttons"], elem_id="canary-end") as self._end:
                self._promote = gr.Button("Promote it…", size="md", elem_id="canary-promote")
                self._stop = gr.Button("Stop the trial…", size="md", elem_id="canary-stop")
            self._ask_start = Question("canary-start", "Start", "Do not start", extra=_reason("start"))
            self._ask_promote = Question(
                "canary-promote", "Promote", "Go on trying", extra=_reason("promote")
            )
            self._ask_stop = Question("canary-stop", "Stop", "Go on trying", extra=_reason("stop"))
            self.says = gr.HTML("", js_on_load=None, elem_id="canary-says")
            gr.HTML("<h3>Earlier canaries</h3>", js_on_load=None)
            self._past = gr.HTML("", js_on_load=None, elem_id="canary-past")
        self._listed = gr.Textbox(visible="hidden", elem_id="canary-listed", label="Versions listed")
        self.seen: list[Any] = [self._listed]
        self.outputs = [self._status, self._past, self._begin, self._end, self._pick, self._listed]

    def wire(self) -> None:
        """Bind the buttons; a confirmed act also shows the panel as it then is."""
        asked = (self._ask_start, self._ask_promote, self._ask_stop)
        told = [self.says, *self.outputs, *(part for each in asked for part in each.outputs)]
        self._start.click(self.ask_start, [self._pick, self._share], told, **QUIETLY)
        self._promote.click(self.ask_promote, None, told, **QUIETLY)
        self._stop.click(self.ask_stop, None, told, **QUIETLY)
        self._ask_start.wire(self.start, told, [self._share])
        self._ask_promote.wire(self.promote, told)
        self._ask_stop.wire(self.stop, told)

    def read(self, listed: str = "") -> Update:
        """Both sides now; the list to pick from only when it is not the one `listed`."""
        trials = read_trials(self._services)
        running = next((trial for trial in trials if trial.canary.outcome is None), None)
        choices = list_choices(read_policies(self._services.store))
        update: Update = {
            self._status: write_trial(running, bool(choices)),
            self._past: write_past_trials([trial for trial in trials if trial is not running]),
            self._begin: reveal(running is None, "buttons"),
            self._end: reveal(running is not None, "buttons"),
        }
        signature = ",".join(label for label, _ in choices)
        if signature != listed:
            update |= {self._pick: gr.update(choices=choices), self._listed: signature}
        return update

    @acting("start a canary")
    def ask_start(self, version: str | None, share: float | None, request: gr.Request) -> Update:  # noqa: ARG002
        """Open the row that asks."""
        if not version:
            raise BadValue("pick a version first")
        policy = read_policy(self._services.store, version)
        live = live_version(self._services.store)
        sentence = (
            f"Let {policy.version} ({policy.state}) answer {_to_share(share) * 100:g} % of conversations"
            f" beside {live}?"
        )
        return self._closed() | self._ask_start.ask(sentence, version)

    @acting("start a canary")
    def start(self, version: str, reason: str, share: float | None, request: gr.Request) -> Update:
        """Give the version its share."""
        desk = require_desk(self._services)
        canary = desk.start(version, _to_share(share), admin(request).name, reason.strip())
        return self._done(f"{canary.version} is on trial beside {canary.live}.")

    @acting("promote the canary")
    def ask_promote(self, request: gr.Request) -> Update:  # noqa: ARG002
        """Open the row that asks."""
        version, live = self._require_running()
        return self._closed() | self._ask_promote.ask(f"Make {version} live in place of {live}?", version)

    @acting("promote the canary")
    def promote(self, version: str, reason: str, request: gr.Request) -> Update:
        """Make the version on trial live."""
        self._require_running(version)
        promotion = require_desk(self._services).promote(admin(request).name, reason.strip())
        return self._done(f"{promotion.version} is live; before it was {promotion.previous}.")

    @acting("stop the canary")
    def ask_stop(self, request: gr.Request) -> Update:  # noqa: ARG002
        """Open the row that asks."""
        version, live = self._require_running()
        sentence = f"Stop trying {version}? Every conversation goes to {live} again."
        return self._closed() | self._ask_stop.ask(sentence, version)

    @acting("stop the canary")
    def stop(self, version: str, reason: str, request: gr.Request) -> Update:
        """End the trial without a verdict."""
        self._require_running(version)
        canary = require_desk(self._services).stop(admin(request).name, reason.strip())
        return self._done(f"The trial of {canary.version} is over; {canary.live} answers everybody.")

    def _require_running(self, asked: str | None = None) -> tuple[str, str]:
        """The version on trial and live; BadValue when none is, or another than the one asked about."""
        running = read_canary(self._services.store)
        if running is None or asked not in (None, running.version):
            raise BadValue(f"{asked or 'a version'} is not on trial any more; look again")
        return running.version, running.live

    def _done(self, sentence: str) -> Update:
        return self._closed() | self.read() | {self.says: say(sentence)}

    def _closed(self) -> Update:
        closed = self._ask_start.close() | self._ask_promote.close() | self._ask_stop.close()
        return closed | {self.says: ""}


def _to_share(percent: float | None) -> float:
    if percent is None or not 0 < percent < 100:
        raise BadValue(f"the share {percent if percent is not None else ''} % must lie between 0 and 100")
    return percent / 100


def _reason(act: str) -> Any:
    return lambda: [gr.Textbox(label="Reason", max_length=500, elem_id=f"canary-{act}-reason")]
