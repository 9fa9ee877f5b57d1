"""How many questions one person may have in flight, so that nobody fills the engine. Knows no engine."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence

from annotate.errors import TooManyRequests


class ChatSlots:
    """Who is being answered now, and with which completions; the lock lives with what it guards."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # person_id -> the completion ids of each question that still has answers to come
        self._writing: defaultdict[str, list[set[str]]] = defaultdict(list)

    def take(self, person_id: str, completion_ids: Sequence[str], most: int = 1) -> None:
        """Note the answers to one more question; TooManyRequests while `most` are being answered."""
        with self._changed:
            held = len(self._writing.get(person_id, ()))
            if held >= most:
                raise TooManyRequests(_say_full(held))
            self._writing[person_id].append(set(completion_ids))

    def free(self, person_id: str, completion_id: str) -> None:
        """Note that one answer is done; after the last of its question the place is free."""
        with self._changed:
            questions = [ids - {completion_id} for ids in self._writing.pop(person_id, [])]
            if left := [ids for ids in questions if ids]:
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
            return any(completion_id in ids for questions in self._writing.values() for ids in questions)

    def count(self) -> int:
        """How many answers wait or are being written, to everybody."""
        with self._changed:
            return sum(len(ids) for questions in self._writing.values() for ids in questions)


def _say_full(held: int) -> str:
    if held == 1:
        return "an answer to you is still being written; wait for it or stop it"
    return f"{held} questions of yours are still being answered; wait for one of them or stop it"
