"""Counts what each version has answered and how fast. Written by one thread, read by any."""

from __future__ import annotations

import bisect
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from serving.engine import FIRST_TOKEN_BUCKETS_S, VersionStats

WINDOW_S = 60.0


class Work(Protocol):
    """What a scheduler holds: a request, or an answer to be scored."""

    @property
    def version(self) -> str: ...


class Load(NamedTuple):
    """What a scheduler holds right now, counted by version; `waiting` are people's requests alone."""

    waiting: Counter[str]
    waiting_background: Counter[str]
    running: Counter[str]


def count_load(people: Iterable[Work], background: Iterable[Work], running: Iterable[Work]) -> Load:
    """Count what two queues hold and what is being answered."""
    return Load(*(Counter(work.version for work in held) for held in (people, background, running)))


class VersionCounter:
    """The figures of one loaded version."""

    def __init__(self) -> None:
        self.finished = 0
        self.cancelled = 0
        self.failed = 0
        self._tokens = 0
        self._since = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque()  # (second, tokens written in it)
        self._first_tokens = [0] * (len(FIRST_TOKEN_BUCKETS_S) + 1)
        self._first_token_sum_s = 0.0

    def add_tokens(self, number: int, now: float) -> None:
        """So many tokens were written at this moment (monotonic seconds)."""
        self._tokens += number
        second = float(int(now))
        if self._recent and self._recent[-1][0] == second:
            self._recent[-1] = (second, self._recent[-1][1] + number)
        else:
            self._recent.append((second, number))
        while self._recent[0][0] < now - WINDOW_S:
            self._recent.popleft()

    def add_first_token(self, waited_s: float) -> None:
        """An answer began this long after it was asked for."""
        self._first_tokens[bisect.bisect_left(FIRST_TOKEN_BUCKETS_S, waited_s)] += 1
        self._first_token_sum_s += waited_s

    def read(self, version: str, load: Load, adapter_bytes: int) -> VersionStats:
        """The figures now, under the name the version has in `load`."""
        now = time.monotonic()
        recent = sum(number for second, number in [*self._recent] if second >= now - WINDOW_S)
        return VersionStats(
            waiting=load.waiting[version],
            waiting_background=load.waiting_background[version],
            running=load.running[version],
            finished=self.finished,
            cancelled=self.cancelled,
            failed=self.failed,
            tokens=self._tokens,
            tokens_per_s=recent / max(1.0, min(WINDOW_S, now - self._since)),
            first_token_counts=tuple(self._first_tokens),
            first_token_sum_s=self._first_token_sum_s,
            adapter_bytes=adapter_bytes,
        )
