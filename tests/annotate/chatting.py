"""A tester at the chat page, without a server or a browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from annotate.pages.chat_handlers import Handlers
from annotate.pages.chat_screen import CHAT, SIDE_BY_SIDE, Parts
from tests.fakes import ScriptedSample

PARTS = Parts(**{name: name for name in Parts.__dataclass_fields__})  # names in place of components
Shown = dict[str, Any]


@dataclass
class Chatter:
    """A tester at the page: each act gives what is shown in the end."""

    handlers: Handlers
    request: Any
    sample: ScriptedSample
    at: tuple[str, str] = ("", "")

    def frames(self, text: str, mode: str = CHAT) -> list[Shown]:
        return list(self.handlers.send(text, *self.at, mode, self.request))

    def send(self, text: str, at: tuple[str, str, str] | None = None, mode: str = CHAT) -> Shown:
        """Send a message where the last one ended, or at a spot."""
        conversation_id, key, mode = at or (*self.at, mode)
        shown = list(self.handlers.send(text, conversation_id, key, mode, self.request))[-1]
        self.at = (shown.get("conversation", ""), shown.get("at", ""))
        return shown

    def retry(self, at: tuple[str, str, str], text: str = "Hello, again.") -> Shown:
        self.sample.pieces = (text,)
        return list(self.handlers.retry(*at, self.request))[-1]

    def ask_anew(self, text: str, editing: str, at: tuple[str, str, str]) -> Shown:
        return list(self.handlers.ask_anew(text, editing, *at, self.request))[-1]

    def reload(self, at: tuple[str, str, str]) -> Shown:
        """Open the page at the address that such a spot has."""
        conversation_id, key, mode = at
        self.request.query_params = {
            "c": conversation_id,
            "at": key,
            "m": "2" if mode == SIDE_BY_SIDE else "",
        }
        shown: Shown = self.handlers.open(self.request)
        return shown
