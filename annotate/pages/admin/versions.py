"""The tab about policy versions: the registry, promoting one, going back, and who did what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from annotate.pages.admin.acting import QUIETLY, SLOWLY, Update, acting, admin
from annotate.pages.admin.panels.pieces import say
from annotate.pages.admin.panels.versions import write_audit, write_versions
from annotate.pages.showing import GONE, reveal
from annotate.services import Services
from store.errors import BadValue
from store.policies import live_version, read_policies, read_policy, read_promotions
from store.records import BASE_VERSION, Policy

PREVIOUS = "previous"


class VersionSection:
    """Lays itself out where it is made; `read` gives what changes by itself. Both acts ask first."""

    is_polled = True

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Versions</h2>", js_on_load=None)
            self._table = gr.HTML("", js_on_load=None, elem_id="versions")
            with gr.Row(elem_classes=["buttons"]):
                self._pick = gr.Dropdown(
                    [], label="Version", elem_id="version-pick", filterable=False, min_width=160
                )
                self._promote = gr.Button("Promote…", size="md", elem_id="promote")
                self._rollback = gr.Button("Roll back…", size="md", elem_id="rollback")
            self._ask_promote = self._lay_out_promote()
            self._ask_rollback = self._lay_out_rollback()
            self.says = gr.HTML("", js_on_load=None, elem_id="version-says")
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Promotions and rollbacks</h2>", js_on_load=None)
            self._audit = gr.HTML("", js_on_load=None, elem_id="audit")
        self._listed = gr.Textbox(visible="hidden", elem_id="listed", label="Versions listed")
        self.seen = [self._listed]
        self.outputs = [self._table, self._pick, self._audit, self._listed]

    def _lay_out_promote(self) -> Any:
        with gr.Column(elem_id="promote-row", elem_classes=["confirm", GONE]) as row:
            self._promote_says = gr.HTML("", js_on_load=None)
            self._target = gr.Textbox(visible="hidden", elem_id="promote-target", label="Version to promote")
            self._promote_reason = gr.Textbox(label="Reason", max_length=500, elem_id="promote-reason")
            with gr.Row(elem_classes=["buttons"]):
                self._promote_yes = gr.Button(
                    "Promote", variant="primary", size="md", elem_id="promote-confirm"
                )
                self._promote_no = gr.Button("Keep the live version", size="md", elem_id="promote-keep")
        return row

    def _lay_out_rollback(self) -> Any:
        with gr.Column(elem_id="rollback-row", elem_classes=["confirm", GONE]) as row:
            self._back_to = gr.Radio(
                [("The version that was live before", PREVIOUS), ("v0, the base model", BASE_VERSION)],
                value=PREVIOUS,
                label="Roll back to",
                elem_id="rollback-to",
            )
            self._rollback_reason = gr.Textbox(label="Reason", max_length=500, elem_id="rollback-reason")
            with gr.Row(elem_classes=["buttons"]):
                self._rollback_yes = gr.Button(
                    "Roll back", variant="stop", size="md", elem_id="rollback-confirm"
                )
                self._rollback_no = gr.Button("Keep the live version", size="md", elem_id="rollback-keep")
        return row

    def wire(self) -> None:
        """Bind the buttons; a confirmed act also shows the tables as they then are."""
        asked = [self._ask_promote, self._ask_rollback, self._promote_says, self._target, self.says]
        self._promote.click(self.ask_promote, [self._pick], asked, **QUIETLY)
        self._rollback.click(self.ask_rollback, None, asked, **QUIETLY)
        done = [
            self.says, self._ask_promote, self._ask_rollback, self._promote_reason, self._rollback_reason,
            *self.outputs,
        ]  # fmt: skip
        self._promote_yes.click(self.promote, [self._target, self._promote_reason], done, **SLOWLY)
        self._rollback_yes.click(self.roll_back, [self._back_to, self._rollback_reason], done, **SLOWLY)
        gr.on([self._promote_no.click, self._rollback_no.click], self.keep, None, done, **QUIETLY)

    def read(self, listed: str = "") -> Update:
        """The registry and its history now; the list to pick from only when it is not the one `listed`."""
        policies = read_policies(self._services.store)
        update: Update = {
            self._table: write_versions(policies),
            self._audit: write_audit(read_promotions(self._services.store, limit=50)),
        }
        choices = list_choices(policies)
        signature = ",".join(label for label, _ in choices)
        if signature != listed:
            update |= {self._pick: gr.update(choices=choices), self._listed: signature}
        return update

    @acting("promote")
    def ask_promote(self, version: str | None, request: gr.Request) -> Update:  # noqa: ARG002
        """Open the row that asks whether this version should become live."""
        if not version:
            raise BadValue("pick a version first")
        policy = read_policy(self._services.store, version)
        live = live_version(self._services.store)
        return {
            self._ask_promote: reveal(True, "confirm"),
            self._ask_rollback: reveal(False, "confirm"),
            self._promote_says: say(f"Make {policy.version} ({policy.state}) live in place of {live}?"),
            self._target: version,
            self.says: "",
        }

    @acting("roll back")
    def ask_rollback(self, request: gr.Request) -> Update:  # noqa: ARG002
        """Open the row that asks where to go back to."""
        return {
            self._ask_rollback: reveal(True, "confirm"),
            self._ask_promote: reveal(False, "confirm"),
            self.says: "",
        }

    @acting("promote")
    def promote(self, version: str, reason: str, request: gr.Request) -> Update:
        """Make the version live."""
        promotion = self._services.promote(version, admin(request).name, reason.strip())
        said = say(f"{promotion.version} is live; before it was {promotion.previous}.")
        return self._closed() | self.read() | {self.says: said}

    @acting("roll back")
    def roll_back(self, back_to: str, reason: str, request: gr.Request) -> Update:
        """Make an earlier version live again."""
        version = None if back_to == PREVIOUS else back_to
        promotion = self._services.roll_back(admin(request).name, version, reason.strip())
        said = say(f"Rolled back: {promotion.version} is live; before it was {promotion.previous}.")
        return self._closed() | self.read() | {self.says: said}

    @acting("close this")
    def keep(self, request: gr.Request) -> Update:  # noqa: ARG002
        """Close the question without an act."""
        return self._closed() | {self.says: ""}

    def _closed(self) -> Update:
        return {
            self._ask_promote: reveal(False, "confirm"),
            self._ask_rollback: reveal(False, "confirm"),
            self._promote_reason: "",
            self._rollback_reason: "",
        }


def list_choices(policies: Sequence[Policy]) -> list[tuple[str, str]]:
    """(label, version) of everything that can become live; what was rejected or failed cannot."""
    return [
        (f"{policy.version} · {policy.state}", policy.version)
        for policy in policies
        if policy.state in ("candidate", "retired")
    ]
