"""The open tasks with everything that was given, promised and skipped, and what each event does to them.

No lock and no clock of its own: `queue.py` has both and is the only caller. No SQL.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any

from store.clock import from_column, from_text
from store.holds import Hold, Holds
from store.lease_log import LeaseLog, NotedLease
from store.queue_settings import QueueSettings
from store.records import Lease, Task, TaskKind
from store.shelf import Entry, Pool, Shelf

Event = dict[str, Any]
KINDS: tuple[TaskKind, ...] = ("pair", "single")


@dataclass(frozen=True, slots=True)
class Filling:
    """What the tables know that is needed here: open and gold tasks, who may act, who not, acts a person."""

    entries: list[Entry]
    active: set[str]
    inactive: set[str]
    num_acts: Counter[str]


@dataclass(frozen=True, slots=True)
class PlannedReturn:
    """A hold that begins when the undo it belongs to is on disk; till then it keeps room in `reserved`."""

    lease: Lease
    counts: bool
    reserved: Entry | None


class OpenTasks:
    """What can be handed out, to whom, and who holds it."""

    def __init__(self, settings: QueueSettings, log: LeaseLog) -> None:
        self.holds = Holds(log)
        self._log = log
        self._settings = settings
        self._rng = Random(settings.seed)
        self._clear()

    def fill(self, filling: Filling, noted: list[NotedLease] | None = None) -> None:
        """Begin anew from the tables; keep the holds (or take those noted) whose tasks have room for them.

        The note is written anew too: who was erased meanwhile is in it no longer.
        """
        kept = noted if noted is not None else [_note(held) for held in self.holds]
        self.holds = Holds(self._log)
        self._clear()
        self.inactive |= filling.inactive
        self.num_acts.update(filling.num_acts)
        for entry in sorted(filling.entries, key=lambda entry: entry.task.priority):  # so each goes last
            self.admit(entry)
        restored = ((self._restore(note, filling.active), note.counts) for note in kept)
        self._log.rewrite([(lease, counts) for lease, counts in restored if lease is not None])

    def admit(self, entry: Entry) -> None:
        """Know this task from now on; one made in a chat is judged there and never handed out."""
        self.entries[entry.task.task_id] = entry
        if entry.task.only_for is not None:
            self.private[entry.task.only_for][entry.task.task_id] = entry
        self.place(entry)

    def place(self, entry: Entry) -> None:
        """Put it where it belongs now."""
        wanted = self._pool_for(entry)
        if entry.pool is not None and not (entry.pool is wanted and entry.pool.is_in_order(entry)):
            entry.pool.remove(entry)
        if wanted is not None and entry.pool is None:
            wanted.add(entry)
        if _is_over(entry):
            self._over.append(entry)

    def forget_finished(self) -> None:
        """Let go of what nobody can be handed again; an event that brings one back brings what it was."""
        for entry in filter(_is_over, self._over):
            self.entries.pop(entry.task.task_id, None)
            if entry.task.only_for is not None:
                self.private[entry.task.only_for].pop(entry.task.task_id, None)
        self._over.clear()

    def choose(self, person_id: str, kind: TaskKind) -> tuple[Entry | None, bool]:
        """The task this person gets next, and whether holding it takes one of its wanted places."""
        for own in self.private[person_id].values():
            if own.task.kind == kind and own.has_room and own.is_open_to(person_id):
                return own, True
        shelf = self.shelves[kind]
        is_random = self._rng.random() < self._settings.random_share
        entry = shelf.draw(person_id, self._rng) if is_random else None
        entry = entry or shelf.first(person_id)
        # Only beside real work: who waits for a task and asks again and again would get all the gold.
        if entry is not None and self._rng.random() < self._settings.gold_share:
            gold = self.gold[kind].draw(person_id, self._rng)
            if gold is not None:
                return gold, False
        return entry, True

    def is_repeat_due(self, person_id: str, kind: TaskKind) -> bool:
        """Draw whether this person, who holds nothing, judges something again now."""
        if self.num_acts[person_id] < self._settings.repeat_after or self.private[person_id]:
            return False
        if self.shelves[kind].first(person_id) is None:
            return False
        return self._rng.random() < self._settings.repeat_share

    def any_id(self, kind: TaskKind) -> str | None:
        """The id of any task on the shelf, or None."""
        return self.shelves[kind].any_id(self._rng)

    def hold(self, lease: Lease, entry: Entry, counts: bool) -> Lease:
        """The person holds it from now on."""
        self.holds.add(Hold(lease, entry, counts))
        self.place(entry)
        return lease

    def release(self, held: Hold) -> None:
        """The person holds it no more, and may be handed it again."""
        self.holds.drop(held)
        self.place(held.entry)
        if held.entry.pool is not None:
            held.entry.pool.announce(held.entry)

    def expire(self, now: datetime) -> None:
        """Free what was held until now."""
        for held in self.holds.take_ended(now):
            self.release(held)

    def reserve(self, entry: Entry, places: int) -> None:
        """Keep that many places (or, below 0, give them free again)."""
        entry.promised += places
        self.place(entry)

    def find_untouched(self, version_kept: str) -> list[Entry]:
        """Tasks of other versions that nobody has judged and nobody holds, oldest first."""
        old = [e for e in self.entries.values() if e.task.version != version_kept and _is_untouched(e)]
        return sorted(old, key=lambda entry: entry.age)

    def follow(self, seq: int, event: Event, fresh: set[str]) -> None:
        """Do what a committed event does here; tasks in `fresh` are known as they stand after it."""
        known = _FOLLOW.get(event["type"])
        if known is not None:
            known(self, seq, event, fresh)

    def _add_task(self, seq: int, event: Event, _fresh: set[str]) -> None:
        if event.get("purpose") != "chat":
            self.admit(Entry(_read_task(event), age=seq))

    def _retire_tasks(self, _seq: int, event: Event, _fresh: set[str]) -> None:
        for task_id in event["task_ids"]:
            self._close(task_id)

    def _adjudicate(self, _seq: int, event: Event, _fresh: set[str]) -> None:
        self._close(event["task_id"])

    def _save_judgement(self, _seq: int, event: Event, fresh: set[str]) -> None:
        task_id, person_id = event["task_id"], event["person_id"]
        is_skip, entry = event["choice"] == "skip", self.entries.get(task_id)
        self.num_acts[person_id] += not is_skip
        if entry is not None and task_id not in fresh:
            entry.acted.append(person_id)
            entry.num_skips += is_skip
            entry.accepted += not is_skip and event.get("counts", True)
        held = self.holds.find(task_id, person_id)
        if held is not None:
            self.holds.drop(held)
            entry = held.entry
        if entry is not None:
            self.place(entry)

    def _undo_judgement(self, _seq: int, event: Event, fresh: set[str]) -> None:
        task_id, person_id = event["task_id"], event["person_id"]
        is_skip, entry = event["choice"] == "skip", self.entries.get(task_id)
        self.num_acts[person_id] -= not is_skip
        if entry is not None and task_id not in fresh:
            if person_id in entry.acted:
                entry.acted.remove(person_id)
            entry.num_skips -= is_skip
            entry.accepted -= not is_skip and event.get("counts", True)
        planned = self.returns.pop(event["judgement_id"], None)
        if planned is not None and planned.reserved is not None:
            planned.reserved.promised -= 1
        if planned is not None and entry is not None:
            for held in self.holds.of(person_id, planned.lease.task.kind):
                self.release(held)
            self.holds.add(Hold(planned.lease, entry, planned.counts))
        if entry is not None:
            self.place(entry)
            if entry.pool is not None:
                entry.pool.announce(entry)

    def _set_gold(self, _seq: int, event: Event, fresh: set[str]) -> None:
        self._mark_gold(event["task_id"], True, fresh)

    def _drop_gold(self, _seq: int, event: Event, fresh: set[str]) -> None:
        self._mark_gold(event["task_id"], False, fresh)

    def _set_active(self, _seq: int, event: Event, _fresh: set[str]) -> None:
        if event["active"]:
            self.inactive.discard(event["person_id"])
        else:
            self._send_away(_seq, event, _fresh)

    def _send_away(self, _seq: int, event: Event, _fresh: set[str]) -> None:
        self.inactive.add(event["person_id"])
        for held in self.holds.of(event["person_id"]):
            self.release(held)

    def _mark_gold(self, task_id: str, is_gold: bool, fresh: set[str]) -> None:
        entry = self.entries.get(task_id)
        if entry is not None and task_id not in fresh:
            entry.is_gold = is_gold
            self.place(entry)

    def _close(self, task_id: str) -> None:
        entry = self.entries.get(task_id)
        if entry is not None:
            entry.is_closed = True
            self.place(entry)

    def _pool_for(self, entry: Entry) -> Pool | None:
        task = entry.task
        if task.purpose != "label" or task.only_for is not None:
            return None
        if entry.is_gold:
            return self.gold[task.kind]
        is_out = entry.num_skips >= self._settings.skips_to_adjudicate
        return self.shelves[task.kind] if entry.has_room and not is_out else None

    def _restore(self, note: NotedLease, active: set[str]) -> Lease | None:
        entry = self.entries.get(note.task_id)
        if entry is None or not entry.is_open_to(note.person_id) or note.person_id not in active:
            return None
        if note.counts and not entry.has_room:
            return None
        lease = Lease(note.lease_id, entry.task, note.person_id, note.left_id, note.expires_at)
        return self.hold(lease, entry, note.counts)

    def _clear(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.shelves: dict[TaskKind, Shelf] = {kind: Shelf() for kind in KINDS}
        self.gold: dict[TaskKind, Pool] = {kind: Pool() for kind in KINDS}
        self.private: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        self._over: list[Entry] = []
        self.inactive: set[str] = set()
        self.num_acts: Counter[str] = Counter()
        self.returns: dict[str, PlannedReturn] = {}  # judgement id


_FOLLOW: dict[str, Callable[[OpenTasks, int, Event, set[str]], None]] = {
    "task_added": OpenTasks._add_task,
    "tasks_retired": OpenTasks._retire_tasks,
    "adjudicated": OpenTasks._adjudicate,
    "judgement_saved": OpenTasks._save_judgement,
    "judgement_undone": OpenTasks._undo_judgement,
    "gold_set": OpenTasks._set_gold,
    "gold_dropped": OpenTasks._drop_gold,
    "person_active_set": OpenTasks._set_active,
    "person_erased": OpenTasks._send_away,
}


def _is_over(entry: Entry) -> bool:
    is_done = entry.is_closed or entry.accepted >= entry.task.wanted
    return is_done and not entry.is_gold and not entry.holders


def _is_untouched(entry: Entry) -> bool:
    is_label = entry.task.purpose == "label" and not entry.is_gold and not entry.is_closed
    return is_label and not entry.accepted and not entry.promised


def _note(held: Hold) -> NotedLease:
    lease = held.lease
    task_id = lease.task.task_id
    return NotedLease(lease.lease_id, task_id, lease.person_id, lease.left_id, lease.expires_at, held.counts)


def _read_task(event: Event) -> Task:
    first_id, second_id = event["first_id"], event["second_id"]
    return Task(
        task_id=event["task_id"],
        kind=event["kind"],
        prompt_id=event["prompt_id"],
        completion_ids=(first_id,) if second_id is None else (first_id, second_id),
        version=event["version"],
        wanted=event["wanted"],
        created_at=from_column(from_text(event["at"])),
        purpose=event.get("purpose", "label"),
        priority=event.get("priority", 0.0),
        repeat_of=event.get("repeat_of"),
        only_for=event.get("only_for"),
    )
