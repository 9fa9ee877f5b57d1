"""Tasks: what there is to judge, and leases: an annotator's short hold on one.

A task takes exactly `wanted` judgements. Who holds it counts as one to come, so a hold is a promise that the
judgement will be accepted. Which side a completion is shown on is drawn by the caller; here it is only kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, get_args

import duckdb

from store.boundary import check_one_of
from store.clock import from_column, to_column, utc
from store.completions import check_completion, completion_events
from store.database import Store
from store.errors import BadValue, LeaseLost, NotFound
from store.events import Event, new_event
from store.ids import new_id
from store.people import require_active
from store.records import Completion, Lease, Task, TaskKind
from store.writer import Decision

TASK_COLUMNS = """t.task_id, t.kind, t.prompt_id, t.first_id, t.second_id, t.version, t.wanted, t.created_at,
    t.purpose, t.priority, t.repeat_of, t.only_for"""
_WANTS_MORE = "NOT t.retired AND t.num_accepted < t.wanted"
# A first page nearly always holds a task for them; who has skipped more than that gets ten times as many.
_FIRST_PAGE, _PAGE_GROWTH = 100, 10

DrawLeft = Callable[[Task, str], str]


def add_task(
    store: Store,
    kind: TaskKind,
    prompt_id: str,
    completions: Sequence[Completion],
    wanted: int = 1,
    priority: float = 0.0,
) -> Task:
    """Save the completions and the task that asks about them in one write; `wanted` people shall judge it.

    Tasks of lower `priority` (finite) are handed out first.
    """
    check_one_of("kind", kind, get_args(TaskKind))
    if wanted < 1:
        raise BadValue(f"wanted {wanted} must be at least 1")
    if not math.isfinite(priority):
        raise BadValue(f"priority {priority} must be finite")
    checked = [_of_prompt(check_completion(completion), prompt_id) for completion in completions]
    task = replace(_new_task(kind, prompt_id, checked, wanted), priority=priority)

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Task]:
        if not cursor.execute("SELECT 1 FROM prompts WHERE prompt_id = ?", [prompt_id]).fetchone():
            raise NotFound(f"no prompt has the id {prompt_id!r}")
        return Decision(task, [*completion_events(cursor, checked), task_event(task)])

    return store.write(decide)


def count_open_tasks(store: Store, kind: TaskKind) -> int:
    """How many tasks of that kind want more judgements than are given and, by leases, promised."""
    sql = f"""
        SELECT count(*) FROM tasks AS t
        LEFT JOIN (SELECT task_id, count(*) AS promised FROM leases WHERE expires_at > ? GROUP BY task_id)
        USING (task_id)
        WHERE t.kind = ? AND {_WANTS_MORE} AND t.wanted > t.num_accepted + coalesce(promised, 0)"""
    with store.read() as cursor:
        row = cursor.execute(sql, [to_column(utc()), kind]).fetchone()
    return int(row[0]) if row else 0


def retire_tasks(store: Store, version_kept: str) -> int:
    """Close the tasks other versions wrote that nobody has judged and nobody holds; returns how many."""
    sql = """
        SELECT task_id FROM tasks WHERE NOT retired AND version <> ? AND num_accepted = 0
        AND task_id NOT IN (SELECT task_id FROM leases WHERE expires_at > ?) ORDER BY seq"""

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[int]:
        now = utc()
        task_ids = [task_id for (task_id,) in cursor.execute(sql, [version_kept, to_column(now)]).fetchall()]
        events = (
            [new_event("tasks_retired", now, task_ids=task_ids, version_kept=version_kept)]
            if task_ids
            else []
        )
        return Decision(len(task_ids), events)

    return store.write(decide)


def lease_task(
    store: Store,
    person_id: str,
    kind: TaskKind,
    draw_left: DrawLeft,
    lease_s: float = 600.0,
    now: datetime | None = None,
) -> Lease | None:
    """The task of that kind this person holds, held anew, or else the oldest open one, or None.

    Never one they judged or skipped, never for more people than it wants. `draw_left` gives the id of the
    completion to show left and is asked once for each hold of a pair.
    """
    check_one_of("kind", kind, get_args(TaskKind))

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Lease | None]:
        moment = utc(now)
        require_active(cursor, person_id)
        cursor.execute("DELETE FROM leases WHERE expires_at <= ?", [to_column(moment)])
        for held in _read_held(cursor, person_id, moment):
            if held.task.kind == kind:
                return Decision(_extend(cursor, held, moment, lease_s))
        task = _find_open(cursor, person_id, kind, moment)
        if task is None:
            return Decision(None)
        left_id = _draw(draw_left, task, person_id) if kind == "pair" else None
        return Decision(hold(cursor, task, person_id, left_id, moment, lease_s))

    return store.write(decide)


def renew_lease(
    store: Store, task_id: str, person_id: str, lease_s: float = 600.0, now: datetime | None = None
) -> Lease:
    """Hold the task for `lease_s` seconds from now; LeaseLost when the person does not hold it any more."""

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Lease]:
        moment = utc(now)
        return Decision(_extend(cursor, require_lease(cursor, task_id, person_id, moment), moment, lease_s))

    return store.write(decide)


def read_lease(store: Store, task_id: str, person_id: str, now: datetime | None = None) -> Lease:
    """The person's hold on the task; LeaseLost when there is none or it has run out."""
    with store.read() as cursor:
        return require_lease(cursor, task_id, person_id, utc(now))


def require_lease(cursor: duckdb.DuckDBPyConnection, task_id: str, person_id: str, now: datetime) -> Lease:
    """`read_lease` for whoever holds a cursor already."""
    held = [lease for lease in _read_held(cursor, person_id, now) if lease.task.task_id == task_id]
    if not held:
        raise LeaseLost(
            f"task {task_id} is no longer held by this person; nothing was saved, ask for the next task"
        )
    return held[0]


def find_task(cursor: duckdb.DuckDBPyConnection, task_id: str) -> Task:
    """The task with that id; NotFound when there is none."""
    row = cursor.execute(f"SELECT {TASK_COLUMNS} FROM tasks AS t WHERE t.task_id = ?", [task_id]).fetchone()
    if row is None:
        raise NotFound(f"no task has the id {task_id!r}")
    return _to_task(row)


def has_room(cursor: duckdb.DuckDBPyConnection, task_id: str, person_id: str, now: datetime) -> bool:
    """Whether one more judgement is wanted beyond those given and those promised to others."""
    sql = f"SELECT {_WANTS_MORE}, t.wanted - t.num_accepted FROM tasks AS t WHERE t.task_id = ?"
    wants_more, places = cursor.execute(sql, [task_id]).fetchone() or (False, 0)
    return bool(wants_more) and places > _count_promised(cursor, [task_id], person_id, now)[task_id]


def hold(
    cursor: duckdb.DuckDBPyConnection,
    task: Task,
    person_id: str,
    left_id: str | None,
    now: datetime,
    lease_s: float,
) -> Lease:
    """Give the person the task, in the writer's transaction; whoever calls has seen that there is room."""
    lease = Lease(new_id("l"), task, person_id, left_id, now + timedelta(seconds=lease_s))
    values = [lease.lease_id, task.task_id, person_id, left_id, to_column(lease.expires_at)]
    cursor.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?)", values)
    return lease


def release(cursor: duckdb.DuckDBPyConnection, person_id: str, kind: TaskKind) -> None:
    """Let go of whatever of that kind the person holds, in the writer's transaction."""
    tasks = "SELECT task_id FROM tasks WHERE kind = ?"
    cursor.execute(f"DELETE FROM leases WHERE person_id = ? AND task_id IN ({tasks})", [person_id, kind])


def _find_open(
    cursor: duckdb.DuckDBPyConnection, person_id: str, kind: TaskKind, now: datetime
) -> Task | None:
    """The oldest with room for them, page by page: both anti-joins in one query cost ten times as much."""
    sql = f"""
        SELECT {TASK_COLUMNS}, t.wanted - t.num_accepted, t.seq FROM tasks AS t
        WHERE t.kind = ? AND t.seq > ? AND {_WANTS_MORE} ORDER BY t.seq LIMIT ?"""
    after, page = 0, _FIRST_PAGE
    while rows := cursor.execute(sql, [kind, after, page]).fetchall():
        task_ids = [row[0] for row in rows]
        done = _find_judged(cursor, task_ids, person_id)
        promised = _count_promised(cursor, task_ids, person_id, now)
        for *columns, places, _ in rows:
            if columns[0] not in done and places > promised[columns[0]]:
                return _to_task(tuple(columns))
        after, page = rows[-1][-1], page * _PAGE_GROWTH
    return None


def _find_judged(cursor: duckdb.DuckDBPyConnection, task_ids: list[str], person_id: str) -> set[str]:
    sql = "SELECT task_id FROM judgements WHERE person_id = ? AND NOT undone AND list_contains(?, task_id)"
    return {task_id for (task_id,) in cursor.execute(sql, [person_id, task_ids]).fetchall()}


def _count_promised(
    cursor: duckdb.DuckDBPyConnection, task_ids: list[str], person_id: str, now: datetime
) -> Counter[str]:
    """How many others hold each task now."""
    sql = "SELECT task_id FROM leases WHERE expires_at > ? AND person_id <> ? AND list_contains(?, task_id)"
    return Counter(row[0] for row in cursor.execute(sql, [to_column(now), person_id, task_ids]).fetchall())


def _read_held(cursor: duckdb.DuckDBPyConnection, person_id: str, now: datetime) -> list[Lease]:
    """What the person holds, in two look-ups: joining a few leases with all tasks costs much more."""
    sql = """
        SELECT task_id, lease_id, left_id, expires_at FROM leases
        WHERE person_id = ? AND expires_at > ? ORDER BY lease_id"""
    rows = cursor.execute(sql, [person_id, to_column(now)]).fetchall()
    # A crash between journal and tables can leave the hold on a task that is judged by now.
    judged = _find_judged(cursor, [row[0] for row in rows], person_id) if rows else set()
    return [
        Lease(lease_id, find_task(cursor, task_id), person_id, left_id, from_column(expires_at))
        for task_id, lease_id, left_id, expires_at in rows
        if task_id not in judged
    ]


def _extend(cursor: duckdb.DuckDBPyConnection, lease: Lease, now: datetime, lease_s: float) -> Lease:
    until = now + timedelta(seconds=lease_s)
    cursor.execute("UPDATE leases SET expires_at = ? WHERE lease_id = ?", [to_column(until), lease.lease_id])
    return replace(lease, expires_at=until)


def _draw(draw_left: DrawLeft, task: Task, person_id: str) -> str:
    left_id = draw_left(task, person_id)
    check_one_of(f"left of task {task.task_id}", left_id, task.completion_ids)
    return left_id


def _of_prompt(completion: Completion, prompt_id: str) -> Completion:
    if completion.prompt_id not in (None, prompt_id):
        raise BadValue(
            f"completion {completion.completion_id} answers {completion.prompt_id}, not {prompt_id}"
        )
    return replace(completion, prompt_id=prompt_id)


def _new_task(kind: TaskKind, prompt_id: str, completions: Sequence[Completion], wanted: int) -> Task:
    ids = tuple(completion.completion_id for completion in completions)
    version = completions[0].version if completions else ""
    try:
        return Task(new_id("t"), kind, prompt_id, ids, version, wanted, utc())
    except ValueError as error:
        raise BadValue(str(error)) from error


def task_event(task: Task) -> Event:
    """The event that saves it."""
    return new_event(
        "task_added",
        task.created_at,
        task_id=task.task_id,
        kind=task.kind,
        prompt_id=task.prompt_id,
        first_id=task.completion_ids[0],
        second_id=task.completion_ids[1] if task.kind == "pair" else None,
        version=task.version,
        wanted=task.wanted,
        purpose=task.purpose,
        priority=task.priority,
        repeat_of=task.repeat_of,
        only_for=task.only_for,
    )


def _to_task(row: tuple[Any, ...]) -> Task:
    task_id, kind, prompt_id, first_id, second_id, version, wanted, created_at, *newer = row
    completion_ids = (first_id,) if second_id is None else (first_id, second_id)
    return Task(task_id, kind, prompt_id, completion_ids, version, wanted, from_column(created_at), *newer)
