"""How long somebody who is turned away should wait, guessed from how long answers took of late."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

RECENT_S = 30.0  # older answers say little about the speed now
SHORTEST_S, LONGEST_S = 1.0, 60.0
UNKNOWN_S = 2.0  # nothing was finished yet: nobody knows, and the first answers take about that long


class Patience:
    """Remembers how long answers took, and when those who were turned away are expected back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._finished: deque[tuple[float, float]] = deque(maxlen=1000)  # when, and how long it took
        self._expected: deque[float] = deque(maxlen=1000)

    def note_finished(self, took_s: float) -> None:
        """An answer was written in that time, its waiting included."""
        with self._lock:
            self._finished.append((self._clock(), took_s))

    def until_room_s(self, in_flight: int) -> float:
        """When a full queue is expected to have room, in seconds; a caller told so is counted as coming back.

        Half of those in flight finish first, and who was turned away before goes first: all must not come
        back at once to be turned away again. In the time of one answer as many are finished as are in flight
        (Little's law).
        """
        with self._lock:
            now = self._clock()
            while self._expected and self._expected[0] <= now:
                self._expected.popleft()
            in_flight = max(in_flight, 1)
            wait_s = _bound((in_flight / 2 + len(self._expected)) * self._mean_s(now) / in_flight)
            self._expected.append(max(now + wait_s, self._expected[-1] if self._expected else 0.0))
            return wait_s

    def until_answered_s(self) -> float:
        """How long one answer takes, in seconds."""
        with self._lock:
            return _bound(self._mean_s(self._clock()))

    def _mean_s(self, now: float) -> float:
        while self._finished and self._finished[0][0] < now - RECENT_S:
            self._finished.popleft()
        if not self._finished:
            return UNKNOWN_S
        return sum(took_s for _, took_s in self._finished) / len(self._finished)


def _bound(wait_s: float) -> float:
    return min(max(wait_s, SHORTEST_S), LONGEST_S)
