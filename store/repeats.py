"""Hidden repeats: a task somebody judged some time ago, once more, to see whether they agree with themselves.

A repeat looks like any other task. It is about the same completions, is for that person alone, wants one
judgement, is never trained on and lists first what was on the right the first time.
"""

from __future__ import annotations

import secrets

import duckdb

from store.clock import utc
from store.database import Store
from store.events import Event, new_event
from store.filling import TASK_COLUMNS, to_task
from store.ids import new_id
from store.records import Task, TaskKind
from store.writer import Decision


def add_repeat(store: Store, person_id: str, kind: TaskKind) -> Task | None:
    """Add the repeat of a task this person judged at least `repeat_after` judgements ago; None without one.

    No task is repeated twice for one person; which one it is looks random and is not.
    """

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Task | None]:
        found = _find_original(cursor, person_id, kind, store.queue.settings.repeat_after)
        if found is None:
            return Decision(None)
        original, left_id = found
        swapped = sorted(original.completion_ids, key=lambda completion_id: completion_id == left_id)
        repeat = Task(
            _inconspicuous_id(store, kind),
            kind,
            original.prompt_id,
            tuple(swapped),
            original.version,
            wanted=1,
            created_at=utc(),
            purpose="repeat",
            repeat_of=original.task_id,
            only_for=person_id,
        )
        return Decision(repeat, [task_event(repeat)])

    return store.write(decide)


def task_event(task: Task) -> Event:
    """The event that adds this task."""
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


def _find_original(
    cursor: duckdb.DuckDBPyConnection, person_id: str, kind: TaskKind, repeat_after: int
) -> tuple[Task, str | None] | None:
    sql = f"""
        WITH acts AS (
            SELECT task_id, left_id, row_number() OVER (ORDER BY seq DESC) AS ago
            FROM judgements WHERE person_id = $person AND NOT undone AND choice <> 'skip')
        SELECT {TASK_COLUMNS}, acts.left_id FROM acts JOIN tasks AS t USING (task_id)
        WHERE acts.ago >= $after AND t.kind = $kind AND t.purpose = 'label'
            AND task_id NOT IN (SELECT task_id FROM gold)
            AND task_id NOT IN (
                SELECT repeat_of FROM tasks WHERE only_for = $person AND repeat_of IS NOT NULL)
        ORDER BY md5(task_id || $person) LIMIT 1"""
    named = {"person": person_id, "after": repeat_after, "kind": kind}
    row = cursor.execute(sql, named).fetchone()
    return (to_task(row[:-1]), row[-1]) if row else None


def _inconspicuous_id(store: Store, kind: TaskKind) -> str:
    """An id tells when it was made, and a task made this moment would stand out among those made ahead."""
    like = store.queue.any_open_id(kind)
    return new_id("t") if like is None else f"{like[:-16]}{secrets.token_hex(8)}"
