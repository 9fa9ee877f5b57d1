"""The tab about the installation: the settings that hold, backups, and who did what."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import gradio as gr

from annotate.pages.admin.acting import Update
from annotate.pages.admin.panels.audit import write_acts
from annotate.pages.admin.panels.backups import write_backups
from annotate.pages.admin.panels.pieces import note
from annotate.pages.admin.panels.settings import write_settings
from annotate.services import Services
from store.audit import read_audit
from store.backup_folder import read_backups

MOST_ACTS = 100
MEANING = (
    "What holds now, secrets masked. Settings are changed where Heed is started: flags over environment"
    " over the TOML file; then restart."
)


class SettingsSection:
    """Lays itself out where it is made."""

    is_polled = False

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Backups</h2>", js_on_load=None)
            self._backups = gr.HTML("", js_on_load=None, elem_id="backups")
        with gr.Column(elem_classes=["card"]):
            gr.HTML("<h2>Who did what</h2>", js_on_load=None)
            self._acts = gr.HTML("", js_on_load=None, elem_id="acts")
        with gr.Column(elem_classes=["card"]):
            gr.HTML(f"<h2>Settings</h2>{note(MEANING)}", js_on_load=None)
            self._settings = gr.HTML("", js_on_load=None, elem_id="settings")
        self.seen: list[Any] = []
        self.outputs = [self._backups, self._acts, self._settings]

    def wire(self) -> None:
        """There is nothing to press."""

    def read(self) -> Update:
        """The backups on disk, the newest acts, and the settings as they were read at the start."""
        folder, read_status = self._services.backup_folder, self._services.read_backup_status
        status = read_status() if read_status else None
        backups = read_backups(folder) if folder else []
        return {
            self._backups: write_backups(status, backups, datetime.now(UTC)),
            self._acts: write_acts(read_audit(self._services.store, MOST_ACTS)),
            self._settings: write_settings(self._services.show_settings()),
        }
