"""One generation in flight per person, so that nobody fills the engine's queue alone. Knows no engine."""

from __future__ import annotations

import threading

from annotate.errors import TooManyRequests


class ChatSlots:
    """Who is generating now, and which completion; the lock lives with what it guards."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writing: dict[str, str] = {}  # person_id -> completion_id

    def take(self, person_id: str, completion_id: str) -> None:
        """Note that this person's answer is being written; TooManyRequests while another one of theirs is."""
        with self._lock:
            if person_id in self._writing:
                raise TooManyRequests("an answer to you is still being written; wait for it or stop it")
            self._writing[person_id] = completion_id

    def free(self, person_id: str) -> None:
        """Let this person ask again."""
        with self._lock:
            self._writing.pop(person_id, None)

    def is_writing(self, completion_id: str) -> bool:
        """Whether that completion is still being generated."""
        with self._lock:
            return completion_id in self._writing.values()
