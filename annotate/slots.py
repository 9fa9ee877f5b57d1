"""How many answers one person may have in flight, so that nobody fills the engine. Knows no engine."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence

from annotate.errors import TooManyRequests


class ChatSlots:
    """Who is being answered now, and with which completions; the lock lives with what it guards."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._writing: defaultdict[str, set[str]] = defaultdict(set)  # person_id -> completion ids to come

    def take(self, person_id: str, completion_ids: Sequence[str], most: int = 1) -> None:
        """Note the answers to one more question; TooManyRequests when they would be more than `most`.

        Whoever waits for nothing may always ask, whatever the number of answers to that one question.
        """
        with self._changed:
            held = len(self._writing.get(person_id, ()))
            if held and held + len(completion_ids) > most:
                raise TooManyRequests(_say_full(held, most))
            self._writing[person_id] |= set(completion_ids)

    def free(self, person_id: str, completion_id: str) -> None:
        """Note that one answer is done."""
        with self._changed:
            if left := self._writing.pop(person_id, set()) - {completion_id}:
                self._writing[person_id] = left
            self._changed.notify_all()

    def wait_until_free(self, person_id: str, timeout_s: float) -> bool:
        """Wait until nothing is being written to this person; False when that took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: person_id not in self._writing, timeout_s)

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is being written to anybody; False when that took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._writing, timeout_s)

    def is_writing(self, completion_id: str) -> bool:
        """Whether that completion is still being generated."""
        with self._changed:
            return any(completion_id in ids for ids in self._writing.values())

    def count(self) -> int:
        """How many answers wait or are being written, to everybody."""
        with self._changed:
            return sum(len(ids) for ids in self._writing.values())


def _say_full(held: int, most: int) -> str:
    if held == most == 1:
        return "an answer to you is still being written; wait for it or stop it"
    return (
        f"{held} answers to you are still being written, of {most} at once; wait for one of them or stop it"
    )
