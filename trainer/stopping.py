"""How a round's process is told to stop: SIGTERM leaves after saving, SIGINT leaves at once.

A service that stops, a scheduler that preempts and a parent that dies all say SIGTERM, and the round goes on
later. A person who cancels needs nothing saved. Loads no torch: signals must work while that is loading.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

STOPPED = 75  # "temporary failure, try again" of sysexits.h: the round can be continued
CANCELLED = 130  # what a shell reports for SIGINT
_GOODBYE = b"stopped by SIGTERM; the round can go on from what is on disk\n"


class Stopped(Exception):
    """The round was asked to stop and did, with all that it needs to go on on disk."""


class Stopping:
    """What the signals said. While training, a stop waits for the step to end; else nothing needs saving."""

    def __init__(self) -> None:
        self.is_asked = False
        self._waits = False

    def listen(self) -> None:
        """From now on signals arrive here."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._cancel)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, a stop is only noted: whoever trains looks at `is_asked` between steps and saves."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
        if self.is_asked:  # in the very last moment, when nobody looked any more
            _leave(_GOODBYE, STOPPED)

    def _stop(self, _signal: int, _frame: object) -> None:
        # A launcher passes the signal on, so that it comes twice: a second one changes nothing.
        self.is_asked = True
        if not self._waits:
            _leave(_GOODBYE, STOPPED)

    def _cancel(self, _signal: int, _frame: object) -> None:
        _leave(b"cancelled by SIGINT\n", CANCELLED)


def _leave(words: bytes, code: int) -> None:
    """At once: whatever is half written is known by its name, and is swept."""
    os.write(2, words)
    os._exit(code)
