"""Who gets which task next: leases from memory, behind one lock. Safe to use from any thread; no SQL.

It is filled from the tables when the store opens and follows every committed event before its caller is
answered. A hold is a promise: accepted and promised judgements together never exceed what a task wants.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from store.boundary import check_one_of
from store.clock import utc
from store.errors import LeaseLost, NotAllowed
from store.holds import Hold
from store.ids import new_id
from store.lease_log import LeaseLog
from store.open_tasks import Event, Filling, OpenTasks, PlannedReturn
from store.queue_settings import QueueSettings
from store.records import Judgement, Lease, Task, TaskKind
from store.shelf import Entry

DrawLeft = Callable[[Task, str], str]
_BRINGING_BACK = ("judgement_undone", "gold_set", "gold_dropped")


class TaskQueue:
    """The open tasks and who holds them. A decision here lasts with `apply` or ends by `abandon`."""

    def __init__(self, settings: QueueSettings, log: LeaseLog) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._log = log
        self._tasks = OpenTasks(settings, log)
        self._closing: list[Entry] = []
        self._started_at, self._started_s = utc(), time.monotonic()

    def now(self, given: datetime | None = None) -> datetime:
        """The present unless one is given; a wall clock that jumps does not end every lease."""
        if given is not None:
            return utc(given)
        return self._started_at + timedelta(seconds=time.monotonic() - self._started_s)

    def lease(
        self, person_id: str, kind: TaskKind, draw_left: DrawLeft, lease_s: float, now: datetime
    ) -> Lease | None:
        """What the person holds of that kind, held anew, or the next task for them, or None."""
        with self._noting():
            self._tasks.expire(now)
            until = now + timedelta(seconds=lease_s)
            if person_id in self._tasks.inactive:
                raise NotAllowed("this person has been deactivated")
            for held in self._tasks.holds.of(person_id, kind):
                return self._tasks.holds.extend(held, until)
            entry, counts = self._tasks.choose(person_id, kind)
            if entry is None:
                return None
            left_id = _find_left(entry.task, person_id, draw_left)
            return self._tasks.hold(Lease(new_id("l"), entry.task, person_id, left_id, until), entry, counts)

    def renew(self, task_id: str, person_id: str, lease_s: float, now: datetime) -> Lease:
        """Hold it for `lease_s` from now; LeaseLost when the person does not hold it any more."""
        with self._noting():
            held = self._require(task_id, person_id, now)
            return self._tasks.holds.extend(held, now + timedelta(seconds=lease_s))

    def read(self, task_id: str, person_id: str, now: datetime) -> Lease:
        """The person's hold, also while its judgement is being written; LeaseLost when there is none."""
        with self._lock:
            return self._require(task_id, person_id, now).lease

    def find_pending(self, task_id: str, person_id: str) -> Judgement | None:
        """The judgement of this person on this task that is being written just now, or None."""
        with self._lock:
            held = self._tasks.holds.find(task_id, person_id)
            return held.pending if held else None

    def pin(self, judgement: Judgement, now: datetime) -> bool:
        """Keep the hold until its judgement is on disk; returns whether it takes one of the wanted places.

        LeaseLost when there is no hold. For decisions in the writer thread.
        """
        with self._lock:
            held = self._require(judgement.task_id, judgement.person_id, now)
            self._tasks.holds.pin(held, judgement)
            return held.counts

    def plan_return(self, judgement: Judgement, lease: Lease, counts: bool, now: datetime) -> bool:
        """Let the undo of this judgement end in that hold; False when a skipped task has no room any more.

        For decisions in the writer thread.
        """
        with self._lock:
            self._tasks.expire(now)
            reserved = None
            if judgement.choice == "skip" and counts:  # any other act gives the place back that it took
                reserved = self._tasks.entries.get(judgement.task_id)
                if reserved is None or not reserved.has_room:
                    return False
                self._tasks.reserve(reserved, 1)
            self._tasks.returns[judgement.judgement_id] = PlannedReturn(lease, counts, reserved)
            return True

    def is_repeat_due(self, person_id: str, kind: TaskKind, now: datetime) -> bool:
        """Draw whether the next task of this person shall be one they have judged before."""
        if not self.settings.repeat_share:
            return False
        with self._lock:
            self._tasks.expire(now)
            if self._tasks.holds.of(person_id, kind):
                return False
            return self._tasks.is_repeat_due(person_id, kind)

    def any_open_id(self, kind: TaskKind) -> str | None:
        """The id of any task that can be handed out, or None."""
        with self._lock:
            return self._tasks.any_id(kind)

    def count_open(self, kind: TaskKind, now: datetime) -> int:
        """How many tasks want more judgements than are given and promised."""
        with self._lock:
            self._tasks.expire(now)
            return len(self._tasks.shelves[kind])

    def read_head(self, kind: TaskKind, number: int) -> list[Task]:
        """The most valuable open tasks, whoever they are for."""
        return self._tasks.shelves[kind].head(number)  # one slice, whole without the lock

    def close_untouched(self, version_kept: str, now: datetime) -> list[str]:
        """Stop handing out what other versions wrote and nobody judged or holds; the ids, oldest first.

        For decisions in the writer thread: it lasts when `tasks_retired` follows.
        """
        with self._lock:
            self._tasks.expire(now)
            closing = self._tasks.find_untouched(version_kept)
            for entry in closing:
                self._set_closed(entry, True)
            self._closing += closing
            return [entry.task.task_id for entry in closing]

    def let_go(self, person_id: str) -> None:
        """Free what the person holds, except what they have just judged."""
        with self._noting():
            for held in self._tasks.holds.of(person_id):
                self._tasks.release(held)

    def abandon(self) -> None:
        """Nothing that was decided since the last `apply` will happen."""
        with self._lock:
            for planned in self._tasks.returns.values():
                if planned.reserved is not None:
                    self._tasks.reserve(planned.reserved, -1)
            self._tasks.returns.clear()
            for entry in self._closing:
                self._set_closed(entry, False)
            self._closing = []
            self._tasks.holds.settle()

    def unknown_tasks(self, events: Iterable[Event]) -> list[str]:
        """Tasks that these events bring back and that are not kept here, being finished or closed."""
        named = {event["task_id"] for event in events if event["type"] in _BRINGING_BACK}
        # One by one: a difference with the keys would walk through all of them.
        return sorted(task_id for task_id in named if task_id not in self._tasks.entries)

    def apply(self, events: Sequence[Event], first_seq: int, brought: Sequence[Entry] = ()) -> None:
        """Follow what was committed; `brought` are the unknown tasks as they stand after all of it."""
        fresh = {entry.task.task_id for entry in brought}
        with self._noting():
            for entry in brought:
                self._tasks.entries[entry.task.task_id] = entry
            for seq, event in enumerate(events, start=first_seq):
                self._tasks.follow(seq, event, fresh)
            for entry in brought:
                self._tasks.admit(entry)
            self._closing = []
            self._tasks.holds.settle()
            self._tasks.forget_finished()

    def open(self, filling: Filling) -> None:
        """Fill it for the first time, with the holds that were noted before a restart."""
        with self._lock:
            self._tasks.fill(filling, self._log.read())

    def refill(self, filling: Filling) -> None:
        """Begin anew from the tables, with the holds that are kept in memory."""
        with self._lock:
            self._closing = []
            self._tasks.fill(filling)

    def close(self) -> None:
        """Give the note of the holds back."""
        with self._lock:
            self._log.close()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """The lock, and after it the note of what changed, before anybody is told."""
        with self._lock:
            yield
        self._log.flush()

    def _require(self, task_id: str, person_id: str, now: datetime) -> Hold:
        self._tasks.expire(now)
        held = self._tasks.holds.find(task_id, person_id)
        if held is None:
            raise LeaseLost(
                f"task {task_id} is no longer held by this person; nothing was saved, ask for the next task"
            )
        return held

    def _set_closed(self, entry: Entry, is_closed: bool) -> None:
        entry.is_closed = is_closed
        self._tasks.place(entry)


def _find_left(task: Task, person_id: str, draw_left: DrawLeft) -> str | None:
    if task.kind != "pair":
        return None
    # A repeat lists first what was on the right the first time.
    left_id = task.completion_ids[0] if task.purpose == "repeat" else draw_left(task, person_id)
    check_one_of(f"left of task {task.task_id}", left_id, task.completion_ids)
    return left_id
