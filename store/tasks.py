"""Tasks: what there is to judge, and leases: an annotator's short hold on one.

A task takes exactly `wanted` judgements. Who holds it counts as one to come, so a hold is a promise that the
judgement will be accepted. Which side a completion is shown on is drawn by the caller; here it is only kept.
Who gets what is decided in `queue.py`, without a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import get_args

import duckdb

from store.boundary import check_one_of
from store.clock import utc
from store.completions import check_completion, completion_events
from store.database import Store
from store.errors import BadValue, NotFound
from store.events import new_event
from store.filling import TASK_COLUMNS, to_task
from store.ids import new_id
from store.people import require_person
from store.queue import DrawLeft
from store.records import Completion, Lease, Task, TaskKind
from store.repeats import add_repeat, task_event
from store.writer import Decision


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
    return store.queue.count_open(kind, store.queue.now())


def retire_tasks(store: Store, version_kept: str) -> int:
    """Close the tasks other versions wrote that nobody has judged and nobody holds; returns how many.

    None when the queue's settings keep them; they are told by a version that is not the live one.
    """
    if store.queue.settings.off_policy == "keep":
        return 0

    def decide(_: duckdb.DuckDBPyConnection) -> Decision[int]:
        task_ids = store.queue.close_untouched(version_kept, store.queue.now())
        fields = {"task_ids": task_ids, "version_kept": version_kept}
        return Decision(len(task_ids), [new_event("tasks_retired", utc(), **fields)] if task_ids else [])

    return store.write(decide)


def lease_task(
    store: Store,
    person_id: str,
    kind: TaskKind,
    draw_left: DrawLeft,
    lease_s: float = 600.0,
    now: datetime | None = None,
) -> Lease | None:
    """The task of that kind this person holds, held anew, or else the next one for them, or None.

    Never one they judged or skipped, never for more people than it wants. `draw_left` gives the id of the
    completion to show left and is asked once for each hold of a pair; it is fast and takes no lock.
    """
    check_one_of("kind", kind, get_args(TaskKind))
    require_person(store, person_id)
    moment = store.queue.now(now)
    if store.queue.is_repeat_due(person_id, kind, moment):
        add_repeat(store, person_id, kind)  # theirs alone, so it is what the queue hands them next
    return store.queue.lease(person_id, kind, draw_left, lease_s, moment)


def renew_lease(
    store: Store, task_id: str, person_id: str, lease_s: float = 600.0, now: datetime | None = None
) -> Lease:
    """Hold the task for `lease_s` seconds from now; LeaseLost when the person does not hold it any more."""
    return store.queue.renew(task_id, person_id, lease_s, store.queue.now(now))


def read_lease(store: Store, task_id: str, person_id: str, now: datetime | None = None) -> Lease:
    """The person's hold on the task; LeaseLost when there is none or it has run out."""
    return store.queue.read(task_id, person_id, store.queue.now(now))


def count_off_policy(store: Store) -> tuple[int, int]:
    """How many judgements stand, and how many of them are about a task of a version not live at that time."""
    sql = """
        SELECT count(*) FILTER (t.version <> coalesce(p.version, 'v0')), count(*)
        FROM judgements AS j JOIN tasks AS t USING (task_id)
        ASOF LEFT JOIN promotions AS p ON j.seq > p.seq
        WHERE NOT j.undone AND j.choice <> 'skip' AND t.purpose = 'label'"""
    with store.read() as cursor:
        row = cursor.execute(sql).fetchone()
    return (int(row[1]), int(row[0])) if row else (0, 0)


def find_task(cursor: duckdb.DuckDBPyConnection, task_id: str) -> Task:
    """The task with that id; NotFound when there is none."""
    row = cursor.execute(f"SELECT {TASK_COLUMNS} FROM tasks AS t WHERE t.task_id = ?", [task_id]).fetchone()
    if row is None:
        raise NotFound(f"no task has the id {task_id!r}")
    return to_task(row)


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
