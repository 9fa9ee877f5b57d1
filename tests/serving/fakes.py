"""Stand-ins: an engine that says what it was told to, and a batch whose steps the test takes by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from serving.engine import EngineStats, VersionStats
from serving.request import Request
from serving.scoring import Scoring
from store.errors import Busy
from store.records import Chunk, Message, Sampling


def wait_until(claim: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Come back as soon as `claim` holds; fail when it takes longer than `timeout_s`."""
    deadline, pause = time.monotonic() + timeout_s, threading.Event()
    while not claim():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.002)


def ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


class ScriptedBatch:
    """Stands in for DecodeBatch: every row gets token 7 a step. `gate` admits steps, `error` breaks one."""

    def __init__(self, is_open: bool = True) -> None:
        self.requests: list[Request] = []
        self.reading: list[Request] = []
        self.joined: list[list[Request]] = []
        self.parked: list[list[Request]] = []
        self.scored: list[list[Scoring]] = []
        self.error: Exception | None = None
        self.gate = threading.Semaphore(10_000 if is_open else 0)
        self.has_joined = threading.Semaphore(0)

    def admit(self, newcomers: list[Request]) -> None:
        self.joined.append(list(newcomers))
        self.requests += newcomers
        self.has_joined.release()

    def step(self) -> None:
        if not self.requests:
            return
        self.gate.acquire()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        for request in self.requests:
            request.add(7, -0.5, frozenset())
        self.drop_finished()

    def park(self, parked: Sequence[Request]) -> None:
        self.parked.append(list(parked))
        self.requests = [request for request in self.requests if request not in parked]

    def score(self, rows: Sequence[Scoring]) -> list[float]:
        self.scored.append(list(rows))
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return [-1.0 * len(row.answer_ids) for row in rows]

    def drop_finished(self) -> None:
        self.requests = [request for request in self.requests if not request.has_finished]

    def clear(self) -> None:
        self.requests = []


class ScriptedEngine:
    """Implements Engine: answers its version and the seed, or what `answers` holds, one chunk a word.
    `is_away` takes no adapter, as vLLM does when every server was lost."""

    def __init__(self, answers: Sequence[str] = ()) -> None:
        self.loaded: list[str] = []
        self.unloaded: list[str] = []
        self.broken: set[str] = set()
        self.is_away = False
        self.answers = list(answers)
        self._lock = threading.Lock()

    def load(self, version: str, adapter: Path | None) -> None:
        assert (adapter is None) == (version == "v0")
        assert version not in self.loaded
        if self.is_away and adapter is not None:
            raise Busy("no server can answer now")
        self.loaded.append(version)

    def unload(self, version: str) -> None:
        self.loaded.remove(version)
        self.unloaded.append(version)

    def versions(self) -> list[str]:
        return list(self.loaded)

    @property
    def base_fingerprint(self) -> str:
        return "0" * 64

    def stats(self) -> EngineStats:
        return EngineStats({version: VersionStats() for version in self.loaded})

    def close(self) -> None:
        self.loaded.clear()

    def generate(
        self,
        version: str,
        messages: Sequence[Message],
        sampling: Sampling,
        background: bool = False,
        top_logprobs: int | None = None,
    ) -> Iterator[Chunk]:
        assert messages
        assert top_logprobs is None
        assert version in self.loaded, f"{version} was unloaded under a request"
        with self._lock:
            text = self.answers.pop(0) if self.answers else f"{version} says {sampling.seed} {background}"
        logprob = float("nan") if version in self.broken else -1.0
        return iter([Chunk(text, version), Chunk("", version, "stop", (1, 2), logprob, 3)])

    def score(
        self, version: str, messages: Sequence[Message], answers: Sequence[Sequence[int]]
    ) -> list[float]:
        assert messages
        assert version in self.loaded, f"{version} was unloaded under a request"
        return [-float(sum(answer)) for answer in answers]
