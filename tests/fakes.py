"""Stand-ins worth using: a policy that says what it was told to, and services around it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotate.services import Services, WebSettings
from annotate.synthetic import SyntheticDesk
from store.database import Store
from store.engine_stats import EngineStats
from store.errors import Busy, NotFound
from store.records import Chunk, FinishReason, Message, Sampling, TokenLogprob, Why


@dataclass
class ScriptedSample:
    """Streams `pieces`, a token each; a `gate` holds every piece but the first back until it is open.

    Before the first piece a request waits at each of the `places`, for the `turn` when there is one.
    """

    pieces: Sequence[str] = ("Hello", ", ", "world", ".")
    version: str = "v0"
    known: tuple[str, ...] = ("live", "base", "v0")
    gate: threading.Event | None = None
    breaks_after: int | None = None
    at_most: int | None = None  # requests that are taken before it is busy
    places: Sequence[int] = ()
    turn: threading.Event | None = None
    num_left_out: int = 0
    asked: list[tuple[str, tuple[Message, ...], Sampling]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    streams: list[ScriptedStream] = field(default_factory=list)

    def __call__(
        self,
        model: str,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        top_logprobs: int | None = None,
    ) -> Iterator[Chunk]:
        if model not in self.known:
            raise NotFound(f"policy {model!r} is unknown; known: {', '.join(self.known)}")
        if self.at_most is not None and len(self.asked) >= self.at_most:
            raise Busy(f"{len(self.asked)} requests wait for policy {model}; try again shortly")
        self.asked.append((model, tuple(messages), sampling))
        self.streams.append(ScriptedStream(self, top_logprobs))
        return self.streams[-1]

    def stop_all(self) -> None:
        """End every answer as cancelled, as an engine does that is closed."""
        for stream in self.streams:
            stream.close()


class ScriptedStream(Iterator[Chunk]):
    """One request; like the engine's it can be closed from any thread, and then ends as cancelled."""

    def __init__(self, script: ScriptedSample, top_logprobs: int | None) -> None:
        self._script = script
        self._top = top_logprobs
        self._closed = threading.Event()
        self._written: list[str] = []
        self._chunks = self._stream()

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def close(self) -> None:
        self._closed.set()

    def _stream(self) -> Iterator[Chunk]:
        script = self._script
        for place in script.places:
            yield Chunk("", script.version, place=place)
        self._hold(script.turn)
        for number, piece in enumerate(script.pieces):
            self._hold(script.gate if number else None)
            if self._closed.is_set():
                break
            if number == script.breaks_after:
                raise RuntimeError("the engine broke")
            self._written.append(piece)
            yield Chunk(piece, script.version, logprobs=self._logprobs(piece))
        script.stopped.set()
        yield self._last_chunk()

    def _hold(self, gate: threading.Event | None) -> None:
        deadline = time.monotonic() + 20
        while gate is not None and not (gate.wait(0.01) or self._closed.is_set()):
            assert time.monotonic() < deadline, "nobody opened the gate"

    def _logprobs(self, piece: str) -> tuple[TokenLogprob, ...]:
        if self._top is None:
            return ()
        likely = ((piece, -1.5), ("é", -2.5), ("\ufffd", float("-inf")))
        return (TokenLogprob(piece, -1.5, likely[: self._top]),)

    def _last_chunk(self) -> Chunk:
        ids = tuple(range(10, 10 + len(self._written)))
        reason: FinishReason = "cancelled" if self._closed.is_set() else "stop"
        return Chunk(
            "", self._script.version, reason, ids, -1.5 * len(ids), 7, num_left_out=self._script.num_left_out
        )


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
        "engine_stats": EngineStats,
        "synthetic": SyntheticDesk(store, sample or ScriptedSample()),
        "settings": WebSettings(),
    }
    return Services(**{**given, **changes})
