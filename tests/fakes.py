"""Stand-ins worth using: a policy that says what it was told to, and services around it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotate.services import Services, WebSettings
from annotate.synthetic import SyntheticDesk
from store.database import Store
from store.errors import Busy, NotFound
from store.records import Chunk, Message, Sampling, Why


@dataclass
class ScriptedSample:
    """Streams `pieces`, a token each; a `gate` holds every piece but the first back until it is open."""

    pieces: Sequence[str] = ("Hello", ", ", "world", ".")
    version: str = "v0"
    known: tuple[str, ...] = ("live", "base", "v0")
    gate: threading.Event | None = None
    breaks_after: int | None = None
    at_most: int | None = None  # requests that are taken before it is busy
    asked: list[tuple[str, tuple[Message, ...], Sampling]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __call__(self, model: str, messages: Sequence[Message], sampling: Sampling) -> Iterator[Chunk]:
        if model not in self.known:
            raise NotFound(f"policy {model!r} is unknown; known: {', '.join(self.known)}")
        if self.at_most is not None and len(self.asked) >= self.at_most:
            raise Busy(f"{len(self.asked)} requests wait for policy {model}; try again shortly")
        self.asked.append((model, tuple(messages), sampling))
        return self._stream()

    def _stream(self) -> Iterator[Chunk]:
        try:
            for number, piece in enumerate(self.pieces):
                if number and self.gate is not None:
                    assert self.gate.wait(20), "nobody opened the gate"
                if number == self.breaks_after:
                    raise RuntimeError("the engine broke")
                yield Chunk(piece, self.version)
            ids = tuple(range(10, 10 + len(self.pieces)))
            yield Chunk("", self.version, "stop", ids, -1.5 * len(ids), 7)
        finally:
            self.stopped.set()


def _refuse(*_: object) -> Any:
    raise AssertionError("this test did not expect that function to be called")


def make_services(store: Store, sample: ScriptedSample | None = None, **changes: Any) -> Services:
    """Services over a real store; whatever is not given and not harmless fails loudly when called."""
    given: dict[str, Any] = {
        "store": store,
        "sample": sample or ScriptedSample(),
        "loaded_versions": lambda: ["v0"],
        "promote": _refuse,
        "roll_back": _refuse,
        "start_round": _refuse,
        "cancel_round": _refuse,
        "explain_round": lambda: Why(starts=False),
        "read_progress": lambda _round_id: [],
        "read_gate": lambda _round_id: None,
        "read_log": lambda _round_id, _lines: [],
        "is_ready": lambda: True,
        "write_metrics": lambda: "# HELP heed_up 1\nheed_up 1\n",
        "synthetic": SyntheticDesk(store, sample or ScriptedSample()),
        "settings": WebSettings(),
    }
    return Services(**{**given, **changes})
