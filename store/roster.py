"""Who is who without asking a table: people, API tokens and sessions that were looked up lately.

Exact: a change of a person forgets them before its caller is answered, and a look-up that was under way while
something changed is not kept. What nobody has is not kept either, so made-up tokens fill nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Generic, TypeVar

from store.records import Person

Value = TypeVar("Value")
MOST_KEPT = 20_000


class Kept(Generic[Value]):
    """Answers by key, each with the person it is about."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, tuple[str, Value]] = {}
        self._changes = 0

    def known(self, key: str) -> Value | None:
        """The answer for that key when it is kept."""
        found = self._values.get(key)
        return found[1] if found else None

    def find(self, key: str, look_up: Callable[[], tuple[str, Value] | None]) -> Value | None:
        """The answer for that key, by `look_up` (person id and answer, None: there is none) when not kept."""
        known = self._values.get(key)
        if known is not None:
            return known[1]
        changes = self._changes
        found = look_up()
        if found is None:
            return None
        with self._lock:
            if changes == self._changes:
                if len(self._values) >= MOST_KEPT:
                    self._values.clear()
                self._values[key] = found
        return found[1]

    def drop(self, key: str) -> None:
        """Look this key up again."""
        with self._lock:
            self._changes += 1
            self._values.pop(key, None)

    def drop_person(self, person_id: str) -> None:
        """Look up again whatever is about this person."""
        with self._lock:
            self._changes += 1
            for key in [key for key, (owner, _) in self._values.items() if owner == person_id]:
                del self._values[key]

    def clear(self) -> None:
        """Look everything up again."""
        with self._lock:
            self._changes += 1
            self._values.clear()


class Roster:
    """What was looked up about people; sessions with the moment they end."""

    def __init__(self) -> None:
        self.people: Kept[Person] = Kept()
        self.tokens: Kept[Person] = Kept()
        self.sessions: Kept[tuple[Person, datetime]] = Kept()

    def apply(self, events: Iterable[dict[str, Any]]) -> None:
        """Forget whom committed events are about."""
        for event in events:
            if event["type"].startswith("person_") and event["type"] != "person_added":
                for kept in (self.people, self.tokens, self.sessions):
                    kept.drop_person(event["person_id"])

    def clear(self) -> None:
        """Forget everybody, after the tables were built again."""
        for kept in (self.people, self.tokens, self.sessions):
            kept.clear()
