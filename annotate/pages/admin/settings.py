"""The tab about the installation: the settings that hold, backups, and who did what."""

from __future__ import annotations

from typing import Any

import gradio as gr

from annotate.pages.admin.acting import Update
from annotate.pages.admin.panels.pieces import note
from annotate.pages.admin.panels.settings import write_settings
from annotate.services import Services

MEANING = (
    "What holds now, secrets masked. Settings are changed where Heed is started: flags over environment"
    " over the TOML file; then restart."
)


class SettingsSection:
    """Lays itself out where it is made."""

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_classes=["card"]):
            gr.HTML(f"<h2>Settings</h2>{note(MEANING)}", js_on_load=None)
            self._settings = gr.HTML("", js_on_load=None, elem_id="settings")
        self.seen: list[Any] = []
        self.outputs = [self._settings]

    def wire(self) -> None:
        """There is nothing to press."""

    def read(self) -> Update:
        """The settings as they were read at the start."""
        return {self._settings: write_settings(self._services.show_settings())}
