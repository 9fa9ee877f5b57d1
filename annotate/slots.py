"""One question in flight per person, so that nobody fills the engine's queue alone. Knows no engine."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from annotate.errors import TooManyRequests


class ChatSlots:
    """Who is being answered now, and with which completions; the lock lives with what it guards."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._writing: dict[str, set[str]] = {}  # person_id -> completion ids

    def take(self, person_id: str, completion_ids: Sequence[str]) -> None:
        """Note the answers that are being written to this person; TooManyRequests while others are."""
        with self._changed:
            if person_id in self._writing:
                raise TooManyRequests("an answer to you is still being written; wait for it or stop it")
            self._writing[person_id] = set(completion_ids)

    def free(self, person_id: str, completion_id: str) -> None:
        """Note that one answer is done; after the last of them this person may ask again."""
        with self._changed:
            left = self._writing.get(person_id, set()) - {completion_id}
            if left:
                self._writing[person_id] = left
            else:
                self._writing.pop(person_id, None)
            self._changed.notify_all()

    def wait_until_free(self, person_id: str, timeout_s: float) -> bool:
        """Wait until nothing is being written to this person; False when that took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: person_id not in self._writing, timeout_s)

    def is_writing(self, completion_id: str) -> bool:
        """Whether that completion is still being generated."""
        with self._changed:
            return any(completion_id in ids for ids in self._writing.values())
