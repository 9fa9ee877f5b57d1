"""Judgements: an annotator's acts on tasks. Append-only; an undo is one more event.

It knows chosen and rejected; what was on the left is kept as a fact and never used to decide.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import duckdb

from store.boundary import check_one_of, check_reasons, check_text
from store.clock import from_column, to_column, utc
from store.database import Store
from store.errors import BadValue, LeaseLost, StateConflict
from store.events import Event, new_event
from store.ids import new_id
from store.people import require_person
from store.records import STRENGTHS, Choice, Judgement, Lease, Task
from store.tasks import find_task, read_lease
from store.writer import Decision

LEASE_AFTER_UNDO_S = 600.0
CHOICES = {"pair": ("prefer", "tie", "both_bad", "skip"), "single": ("up", "down", "skip")}
COLUMNS = """j.judgement_id, j.task_id, j.person_id, j.choice, j.created_at, j.chosen_id, j.rejected_id,
    j.left_id, j.strength, j.reasons_json, j.comment, j.correction, j.active_ms, j.unsafe_json, j.undone"""


def save_judgement(
    store: Store,
    task_id: str,
    person_id: str,
    *,
    choice: Choice,
    chosen_id: str | None = None,
    rejected_id: str | None = None,
    strength: int = 0,
    reasons: Sequence[str] = (),
    comment: str = "",
    correction: str | None = None,
    active_ms: int | None = None,
    unsafe_ids: Sequence[str] = (),
    now: datetime | None = None,
) -> Judgement:
    """Save an act on the task this person holds, and let go of it; LeaseLost when they do not hold it.

    The same act again gives the first judgement back, whatever its `active_ms`; another is a StateConflict.
    `strength` counts for `prefer` alone.
    """
    check_text("comment", comment)
    if correction is not None:
        check_text("correction", correction, may_be_empty=False)
    if active_ms is not None and not 0 <= active_ms < 2**53:
        raise BadValue(f"active_ms {active_ms} must be a number of milliseconds, 0 or more")
    given = _Act(
        choice=choice,
        chosen_id=chosen_id,
        rejected_id=rejected_id,
        strength=strength,
        reasons=check_reasons(reasons),
        comment=comment,
        correction=correction,
        active_ms=active_ms,
        unsafe_ids=tuple(sorted(set(unsafe_ids))),
    )

    require_person(store, person_id)
    moment = store.queue.now(now)
    try:
        lease = read_lease(store, task_id, person_id, moment)
        return _save_held(store, lease, given, moment, utc(now))
    except LeaseLost as lost:
        return _find_same(store, task_id, person_id, given, lost)


def undo_last(
    store: Store,
    person_id: str,
    now: datetime | None = None,
    lease_s: float = LEASE_AFTER_UNDO_S,
    judgement_id: str | None = None,
) -> Lease | None:
    """Take back this person's newest standing act, a skip too, and hold its task for them, sides unchanged.

    With `judgement_id` that act, however long ago. None when there is no such standing act of theirs;
    StateConflict when a skipped task went to others or was closed.
    """

    require_person(store, person_id)

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Lease | None]:
        moment = store.queue.now(now)
        found = _find_newest(cursor, person_id, judgement_id)
        if found is None:
            return Decision(None)
        last, counts = found
        task = find_task(cursor, last.task_id)
        lease = Lease(new_id("l"), task, person_id, last.left_id, moment + timedelta(seconds=lease_s))
        if not store.queue.plan_return(last, lease, counts, moment):
            raise StateConflict(
                f"the skipped task {last.task_id} has gone to others or was closed; the skip stays"
            )
        undone = {"judgement_id": last.judgement_id, "task_id": last.task_id, "person_id": person_id}
        event = new_event("judgement_undone", utc(now), **undone, choice=last.choice, counts=counts)
        return Decision(lease, [event])

    return store.write(decide)


def read_judgements(store: Store, person_id: str | None = None, limit: int | None = None) -> list[Judgement]:
    """The newest first, those taken back included (`undone`); of one person when an id is given."""
    where = "WHERE j.person_id = $person_id" if person_id is not None else ""
    named: dict[str, Any] = {"limit": limit, "person_id": person_id}
    if person_id is None:
        del named["person_id"]
    sql = f"SELECT {COLUMNS} FROM judgements AS j {where} ORDER BY j.seq DESC LIMIT $limit"
    with store.read() as cursor:
        rows = cursor.execute(sql, named).fetchall()
    return [to_judgement(row) for row in rows]


def count_judgements(store: Store, person_id: str, since: datetime | None = None) -> int:
    """How many of this person's acts stand, skips included; from `since` on when it is given."""
    start = to_column(since) if since is not None else datetime.min
    sql = "SELECT count(*) FROM judgements WHERE person_id = ? AND NOT undone AND created_at >= ?"
    with store.read() as cursor:
        row = cursor.execute(sql, [person_id, start]).fetchone()
    return int(row[0]) if row else 0


def to_judgement(row: tuple[Any, ...]) -> Judgement:
    """A row of `COLUMNS` as a record."""
    return Judgement(
        judgement_id=row[0],
        task_id=row[1],
        person_id=row[2],
        choice=row[3],
        created_at=from_column(row[4]),
        chosen_id=row[5],
        rejected_id=row[6],
        left_id=row[7],
        strength=row[8],
        reasons=tuple(json.loads(row[9])),
        comment=row[10],
        correction=row[11],
        active_ms=row[12],
        unsafe_ids=tuple(json.loads(row[13])),
        undone=row[14],
    )


@dataclass(frozen=True, slots=True)
class _Act:
    """What the person did, before it is known whether it fits the task."""

    choice: Choice
    chosen_id: str | None
    rejected_id: str | None
    strength: int
    reasons: tuple[str, ...]
    comment: str
    correction: str | None
    active_ms: int | None
    unsafe_ids: tuple[str, ...]

    def checked(self, task: Task) -> _Act:
        """The act as it will be kept: BadValue when it does not fit the task."""
        check_one_of(f"choice for {task.kind} {task.task_id}", self.choice, CHOICES[task.kind])
        for unsafe_id in self.unsafe_ids:
            check_one_of(f"unsafe answer of task {task.task_id}", unsafe_id, task.completion_ids)
        if self.choice != "prefer":
            return replace(self, chosen_id=None, rejected_id=None, strength=0)
        if {self.chosen_id, self.rejected_id} != set(task.completion_ids):
            raise BadValue(f"chosen and rejected must be the two completions of task {task.task_id}")
        check_one_of("strength", self.strength, STRENGTHS)
        return self

    def judgement(self, bare: Judgement) -> Judgement:
        """`bare` with what the person did in it."""
        return replace(
            bare,
            choice=self.choice,
            chosen_id=self.chosen_id,
            rejected_id=self.rejected_id,
            strength=self.strength,
            reasons=self.reasons,
            comment=self.comment,
            correction=self.correction,
            active_ms=self.active_ms,
            unsafe_ids=self.unsafe_ids,
        )


def _save_held(store: Store, lease: Lease, given: _Act, moment: datetime, at: datetime) -> Judgement:
    """Save an act on a held task without a look at the tables; LeaseLost when the hold has just ended."""
    act = given.checked(lease.task)
    bare = Judgement(new_id("j"), lease.task.task_id, lease.person_id, "skip", at, left_id=lease.left_id)

    def decide(_: duckdb.DuckDBPyConnection) -> Decision[Judgement]:
        pending = store.queue.find_pending(bare.task_id, bare.person_id)
        if pending is not None:  # the same click twice in one group
            return Decision(_same_or_conflict(pending, act.judgement(pending)))
        judgement = act.judgement(bare)
        counts = store.queue.pin(judgement, moment)  # holding it is having one of the places
        return Decision(judgement, [judgement_event(judgement, counts)])

    return store.write(decide, sees_tables=False)


def _find_same(store: Store, task_id: str, person_id: str, given: _Act, lost: LeaseLost) -> Judgement:
    """The standing judgement when this is the same act once more; what was lost otherwise."""
    with store.read() as cursor:
        act = given.checked(find_task(cursor, task_id))
        earlier = _find_valid(cursor, "j.task_id = ? AND j.person_id = ?", [task_id, person_id])
    if earlier is None:
        raise lost
    return _same_or_conflict(earlier, act.judgement(earlier))


def _same_or_conflict(earlier: Judgement, again: Judgement) -> Judgement:
    if replace(again, active_ms=earlier.active_ms) == earlier:
        return earlier
    raise StateConflict(
        f"this person judged task {earlier.task_id} before, as {earlier.choice}; undo that first to change it"
    )


def _find_valid(cursor: duckdb.DuckDBPyConnection, where: str, parameters: list[str]) -> Judgement | None:
    sql = f"SELECT {COLUMNS} FROM judgements AS j WHERE {where} AND NOT j.undone ORDER BY j.seq DESC LIMIT 1"
    row = cursor.execute(sql, parameters).fetchone()
    return to_judgement(row) if row else None


def _find_newest(
    cursor: duckdb.DuckDBPyConnection, person_id: str, judgement_id: str | None
) -> tuple[Judgement, bool] | None:
    """The person's newest standing act on a task that was handed out, and whether it takes a wanted place."""
    sql = f"""
        SELECT {COLUMNS}, j.counts FROM judgements AS j
        WHERE j.person_id = ? AND NOT j.undone AND (? IS NULL OR j.judgement_id = ?)
            AND j.task_id NOT IN (SELECT task_id FROM tasks WHERE purpose = 'chat')
        ORDER BY j.seq DESC LIMIT 1"""
    row = cursor.execute(sql, [person_id, judgement_id, judgement_id]).fetchone()
    return (to_judgement(row[:-1]), row[-1]) if row else None


def judgement_event(judgement: Judgement, counts: bool = True) -> Event:
    """The event that saves it; `counts` False when it takes none of the wanted places."""
    return new_event(
        "judgement_saved",
        judgement.created_at,
        judgement_id=judgement.judgement_id,
        task_id=judgement.task_id,
        person_id=judgement.person_id,
        choice=judgement.choice,
        chosen_id=judgement.chosen_id,
        rejected_id=judgement.rejected_id,
        left_id=judgement.left_id,
        strength=judgement.strength,
        reasons=list(judgement.reasons),
        comment=judgement.comment,
        correction=judgement.correction,
        active_ms=judgement.active_ms,
        unsafe_ids=list(judgement.unsafe_ids),
        counts=counts,
    )
