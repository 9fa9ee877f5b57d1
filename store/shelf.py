"""The tasks that can be handed out now: in order of value for one person, or any of them at random.

Pure bookkeeping without a lock, a clock or SQL; `queue.py` says what lies here and what does not.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from random import Random

from store.records import Task

Key = tuple[int, float, int]  # started before fresh, then priority, then age
DRAWS = 20  # so often a draw at random may hit a task this person has acted on already
MOST_NEWS = 100_000
_NOWHERE = -1


@dataclass(slots=True, eq=False)
class Entry:
    """What the queue knows of one task. `promised` are the holds that count against `wanted`."""

    task: Task
    age: int
    accepted: int = 0
    promised: int = 0
    num_skips: int = 0
    acted: list[str] = field(default_factory=list)  # who judged or skipped it, and has not taken that back
    holders: list[str] = field(default_factory=list)
    is_gold: bool = False
    is_closed: bool = False  # retired or adjudicated
    pool: Pool | None = None  # where it lies, and at which place
    place: int = _NOWHERE
    key: Key = (0, 0.0, 0)

    @property
    def has_room(self) -> bool:
        """Whether one more judgement is wanted beyond those given and those promised."""
        return not self.is_closed and self.accepted + self.promised < self.task.wanted

    def is_open_to(self, person_id: str) -> bool:
        """Whether this person has neither acted on it nor holds it."""
        return person_id not in self.acted and person_id not in self.holders


class Pool:
    """Entries of which any can be drawn, added and removed at the same cost however many there are."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Put it in; it must lie nowhere yet."""
        assert entry.pool is None
        entry.pool, entry.place = self, len(self._entries)
        self._entries.append(entry)

    def remove(self, entry: Entry) -> None:
        """Take it out: the last one moves to its place."""
        last = self._entries.pop()
        if last is not entry:
            self._entries[entry.place], last.place = last, entry.place
        entry.pool, entry.place = None, _NOWHERE

    def announce(self, entry: Entry) -> None:
        """It may be something again for somebody it was nothing for."""

    def is_in_order(self, entry: Entry) -> bool:  # noqa: ARG002
        """Whether it lies where its value says; here that is anywhere."""
        return True

    def draw(self, person_id: str, rng: Random) -> Entry | None:
        """Any that is open to this person, each as likely; None when `DRAWS` draws found none."""
        for _ in range(DRAWS if self._entries else 0):
            entry = self._entries[rng.randrange(len(self._entries))]
            if entry.is_open_to(person_id):
                return entry
        return None

    def any_id(self, rng: Random) -> str | None:
        """The id of any task here, whoever it is for; None when there is none."""
        return rng.choice(self._entries).task.task_id if self._entries else None


class Shelf(Pool):
    """A pool that is kept in order too, with a cursor a person.

    Everything before a person's cursor is nothing for them: who has judged thousands of open tasks does not
    pass them again at every call. `_news` are the keys put in since, which move a cursor back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._order: list[tuple[int, float, int, Entry]] = []
        self._cursors: dict[str, tuple[Key, int]] = {}
        self._news: list[Key] = []

    def add(self, entry: Entry) -> None:
        """Put it where its value says."""
        super().add(entry)
        entry.key = _key(entry)
        insort(self._order, (*entry.key, entry))
        self.announce(entry)

    def remove(self, entry: Entry) -> None:
        """Take it out of order and pool."""
        super().remove(entry)
        del self._order[bisect_left(self._order, entry.key)]

    def announce(self, entry: Entry) -> None:
        """Let cursors that have passed it come back: it may be something for them again."""
        if len(self._news) >= MOST_NEWS:
            self._news.clear()
            self._cursors.clear()
        self._news.append(entry.key)

    def is_in_order(self, entry: Entry) -> bool:
        """Whether it lies where its value says; a first judgement moves it forward."""
        return entry.key == _key(entry)

    def first(self, person_id: str) -> Entry | None:
        """The most valuable one that is open to this person, or None."""
        position = self._look_from(person_id)
        while position < len(self._order):
            entry = self._order[position][3]
            if entry.is_open_to(person_id):
                break
            position += 1
        found = self._order[position][3] if position < len(self._order) else None
        reached = found.key if found else (2, 0.0, 0)
        self._cursors[person_id] = (reached, len(self._news))
        return found

    def head(self, number: int) -> list[Task]:
        """The first few in order, whoever they are for."""
        return [entry.task for *_, entry in self._order[:number]]

    def _look_from(self, person_id: str) -> int:
        if person_id not in self._cursors:
            return 0
        reached, num_seen = self._cursors[person_id]
        start = min(self._news[num_seen:], default=reached)
        return bisect_left(self._order, min(start, reached))


def _key(entry: Entry) -> Key:
    return (0 if entry.accepted else 1, entry.task.priority, entry.age)
