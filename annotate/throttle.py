"""Slows guessing down: a growing wait after failed sign-ins, and few password checks at once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from annotate.errors import TooManyRequests

FREE_FAILURES = 5
LONGEST_WAIT_S = 900.0
MOST_KEYS = 20_000  # names and addresses remembered; the oldest go first


@dataclass(slots=True)
class _Failures:
    count: int = 0
    blocked_until: float = 0.0


class SignInThrottle:
    """Failed sign-ins by key (a name, an address): five are free, then 1, 2, 4 … 900 seconds apart."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def try_once(self, keys: Sequence[str]) -> None:
        """Count an attempt, as failed until `forgive`; TooManyRequests while one of the keys must wait."""
        with self._lock:
            now = self._clock()
            wait_s = max(self._wait_of(key, now) for key in keys)
            if wait_s > 0:
                raise TooManyRequests(f"too many attempts; try again in {wait_s:.0f} s or later", wait_s)
            for key in keys:
                self._count(key, now)

    def forgive(self, keys: Sequence[str]) -> None:
        """Forget the failures of these keys: somebody signed in."""
        with self._lock:
            for key in keys:
                self._failures.pop(key, None)

    def _wait_of(self, key: str, now: float) -> float:
        failures = self._failures.get(key)
        if failures is None:
            return 0.0
        if now > failures.blocked_until + LONGEST_WAIT_S:  # quiet for long enough: start again
            del self._failures[key]
            return 0.0
        return failures.blocked_until - now

    def _count(self, key: str, now: float) -> None:
        failures = self._failures.setdefault(key, _Failures())
        self._failures.move_to_end(key)
        failures.count += 1
        over = failures.count - FREE_FAILURES
        failures.blocked_until = now + (min(2.0**over, LONGEST_WAIT_S) if over >= 0 else 0.0)
        while len(self._failures) > MOST_KEYS:
            self._failures.popitem(last=False)


class Turnstile:
    """Lets `at_once` callers in and `waiting` more wait; the next one is told to come back."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._inside = threading.BoundedSemaphore(at_once)
        self._places = threading.BoundedSemaphore(at_once + waiting)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place; TooManyRequests when all are taken."""
        if not self._places.acquire(blocking=False):
            raise TooManyRequests("many people are signing in at this moment; try again shortly", 2.0)
        try:
            with self._inside:
                yield
        finally:
            self._places.release()
