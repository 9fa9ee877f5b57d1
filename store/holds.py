"""Who holds which task until when. No lock of its own: the queue's lock guards it.

A hold whose judgement is being written is pinned: it neither runs out nor is handed to anybody until the
judgement is on disk or was given up.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count

from store.lease_log import LeaseLog
from store.records import Judgement, Lease, TaskKind
from store.shelf import Entry


@dataclass(slots=True, eq=False)
class Hold:
    """A lease and the entry it is about; `counts` is False when it takes none of the wanted places."""

    lease: Lease
    entry: Entry
    counts: bool
    pending: Judgement | None = None


class Holds:
    """Every hold, found by person and task or by the moment it runs out."""

    def __init__(self, log: LeaseLog) -> None:
        self._log = log
        self._of: dict[str, dict[str, Hold]] = {}  # person id, task id
        self._by_end: list[tuple[datetime, int, Hold]] = []
        self._turn = count()
        self._pinned: list[Hold] = []

    def __iter__(self) -> Iterator[Hold]:
        for held in self._of.values():
            yield from held.values()

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def find(self, task_id: str, person_id: str) -> Hold | None:
        """The person's hold on that task, or None."""
        return self._of.get(person_id, {}).get(task_id)

    def of(self, person_id: str, kind: TaskKind | None = None) -> list[Hold]:
        """What the person holds of that kind (None: of both) and is not just being judged."""
        held = self._of.get(person_id, {}).values()
        return [h for h in held if h.pending is None and kind in (None, h.lease.task.kind)]

    def add(self, hold: Hold) -> None:
        """From now on the person holds the task."""
        self._keep(hold)
        hold.entry.holders.append(hold.lease.person_id)
        hold.entry.promised += hold.counts

    def drop(self, hold: Hold) -> None:
        """The person holds the task no more."""
        person_id, entry = hold.lease.person_id, hold.entry
        held = self._of[person_id]
        del held[hold.lease.task.task_id]
        if not held:
            del self._of[person_id]
        entry.holders.remove(person_id)
        entry.promised -= hold.counts
        self._log.drop(hold.lease.lease_id)
        if self._log.is_long(len(self)):
            self._log.rewrite((held.lease, held.counts) for held in self)

    def extend(self, hold: Hold, until: datetime) -> Lease:
        """Hold it until then; the old moment in `_by_end` is put right when it comes."""
        is_sooner = until < hold.lease.expires_at
        hold.lease = replace(hold.lease, expires_at=until)
        self._log.note(hold.lease, hold.counts)
        if is_sooner:
            self._expect_end(hold)
        return hold.lease

    def take_ended(self, now: datetime) -> list[Hold]:
        """The holds that have run out by now and are not pinned; whoever asks drops them."""
        ended = []
        while self._by_end and self._by_end[0][0] <= now:
            _, _, hold = heapq.heappop(self._by_end)
            if self.find(hold.lease.task.task_id, hold.lease.person_id) is not hold or hold.pending:
                continue
            if hold.lease.expires_at > now:
                self._expect_end(hold)
            else:
                ended.append(hold)
        return list(dict.fromkeys(ended))

    def pin(self, hold: Hold, judgement: Judgement) -> None:
        """Keep it as it is until `settle`."""
        hold.pending = judgement
        self._pinned.append(hold)

    def settle(self) -> None:
        """What was pinned is judged and dropped by now, or goes on as before."""
        for hold in self._pinned:
            hold.pending = None
            self._expect_end(hold)
        self._pinned.clear()

    def forget(self) -> None:
        """Start anew without a line in the log: the same holds are about to be added again."""
        self._of, self._by_end, self._pinned = {}, [], []

    def _keep(self, hold: Hold) -> None:
        self._of.setdefault(hold.lease.person_id, {})[hold.lease.task.task_id] = hold
        self._log.note(hold.lease, hold.counts)
        self._expect_end(hold)

    def _expect_end(self, hold: Hold) -> None:
        heapq.heappush(self._by_end, (hold.lease.expires_at, next(self._turn), hold))
