"""Counts that take a second with hundreds of thousands of labels, and so are made once a minute at most."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from store.adjudications import find_disputed
from store.database import Store
from store.effective import QualitySettings
from store.quality import read_quality

EVERY_S = 60.0
FIRST_S = 1.0  # the page opens first, and counts at its next poll


@dataclass(frozen=True, slots=True)
class Counted:
    """How many tasks wait for a verdict, and how many people with a flag have labels that count."""

    num_disputed: int
    num_flagged: int


class QualityWatch:
    """Counts at most every `EVERY_S` seconds, for whoever asks then; the others get what was counted last."""

    def __init__(
        self, store: Store, settings: QualitySettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._settings, self._clock = store, settings, clock
        self._counting = threading.Lock()
        self._due: float | None = None
        self._last: Counted | None = None

    def read(self) -> Counted | None:
        """What was counted last; None before the first time."""
        now = self._clock()
        if self._due is None:
            self._due = now + FIRST_S
        if now < self._due or not self._counting.acquire(blocking=False):
            return self._last
        try:
            self._due = now + EVERY_S
            self._last = self._count()
        finally:
            self._counting.release()
        return self._last

    def _count(self) -> Counted:
        people = read_quality(self._store, self._settings).people
        flagged = [person for person in people if person.flags and person.trained_on]
        first = find_disputed(self._store, self._settings, limit=1)
        return Counted(first[0].total if first else 0, len(flagged))
