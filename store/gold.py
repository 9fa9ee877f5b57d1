"""Gold: tasks whose answer is known. Slipped in silently they measure people; they are never trained on."""

from __future__ import annotations

from typing import Any, get_args

import duckdb

from store.boundary import check_one_of, check_text
from store.clock import from_column, utc
from store.database import Store
from store.errors import BadValue, NotFound
from store.events import Event, new_event
from store.records import Choice, Gold, Task
from store.tasks import find_task
from store.writer import Decision

UNANIMOUS = "unanimous"
_COLUMNS = "task_id, choice, chosen_id, source, created_at"


def set_gold(
    store: Store, task_id: str, choice: Choice, chosen_id: str | None = None, *, source: str
) -> Gold:
    """Make this the known answer of the task, in place of any earlier one.

    `source` is unanimous, adjudicated, imported or an admin's name. NotFound without such a task, BadValue
    when the answer does not fit it or it is a repeat or a chat's.
    """
    check_text("source", source, may_be_empty=False)
    check_one_of("choice", choice, get_args(Choice))
    gold = Gold(task_id, choice, chosen_id, source, utc())

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Gold]:
        _check_fits(find_task(cursor, task_id), gold)
        return Decision(gold, [_to_event(gold)])

    return store.write(decide)


def drop_gold(store: Store, task_id: str, actor: str) -> None:
    """Forget the known answer: the task is a label again, wanted as before. NotFound when it has none."""

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[None]:
        if not cursor.execute("SELECT 1 FROM gold WHERE task_id = ?", [task_id]).fetchone():
            raise NotFound(f"task {task_id!r} is no gold task")
        return Decision(None, [new_event("gold_dropped", utc(), task_id=task_id, actor=actor)])

    return store.write(decide)


def read_gold(store: Store) -> list[Gold]:
    """Every gold task, the newest first."""
    with store.read() as cursor:
        rows = cursor.execute(f"SELECT {_COLUMNS} FROM gold ORDER BY seq DESC").fetchall()
    return [_to_gold(row) for row in rows]


def propose_unanimous(store: Store, min_votes: int = 3, limit: int = 20) -> list[Gold]:
    """Tasks that at least `min_votes` people judged and all alike, most votes first; nothing is saved.

    A tie that everybody sees is no answer anybody could get wrong, so it is left out.
    """
    if min_votes < 2:
        raise BadValue(f"min_votes {min_votes} must be at least 2")
    with store.read() as cursor:
        return _find_unanimous(cursor, min_votes, limit)


def promote_unanimous(store: Store, min_votes: int = 3, limit: int = 20) -> list[Gold]:
    """Make up to `limit` unanimous tasks gold; returns them. Their labels are trained on no more."""
    if min_votes < 2:
        raise BadValue(f"min_votes {min_votes} must be at least 2")

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[list[Gold]]:
        found = _find_unanimous(cursor, min_votes, limit)
        return Decision(found, [_to_event(gold) for gold in found])

    return store.write(decide)


def _find_unanimous(cursor: duckdb.DuckDBPyConnection, min_votes: int, limit: int) -> list[Gold]:
    sql = """
        SELECT task_id, min(j.choice), min(j.chosen_id) FROM judgements AS j JOIN tasks AS t USING (task_id)
        WHERE NOT j.undone AND j.choice <> 'skip' AND t.purpose = 'label' AND NOT t.retired
            AND task_id NOT IN (SELECT task_id FROM gold)
            AND task_id NOT IN (SELECT task_id FROM adjudications)
        GROUP BY task_id
        HAVING count(DISTINCT j.person_id) >= ? AND min(j.choice) <> 'tie'
            AND count(DISTINCT (j.choice, j.chosen_id)) = 1
        ORDER BY count(*) DESC, task_id LIMIT ?"""
    now = utc()
    rows = cursor.execute(sql, [min_votes, limit]).fetchall()
    return [Gold(task_id, choice, chosen_id, UNANIMOUS, now) for task_id, choice, chosen_id in rows]


def _check_fits(task: Task, gold: Gold) -> None:
    if task.purpose != "label":
        raise BadValue(f"task {task.task_id} is a {task.purpose}; only a label can be gold")
    choices = ("prefer", "tie", "both_bad") if task.kind == "pair" else ("up", "down")
    check_one_of(f"gold choice for {task.kind} {task.task_id}", gold.choice, choices)
    if gold.choice == "prefer":
        check_one_of(f"chosen of task {task.task_id}", gold.chosen_id, task.completion_ids)
    elif gold.chosen_id is not None:
        raise BadValue(f"gold {gold.choice} of task {task.task_id} has no chosen completion")


def _to_event(gold: Gold) -> Event:
    fields = {"task_id": gold.task_id, "choice": gold.choice, "chosen_id": gold.chosen_id}
    return new_event("gold_set", gold.created_at, **fields, source=gold.source)


def _to_gold(row: tuple[Any, ...]) -> Gold:
    task_id, choice, chosen_id, source, created_at = row
    return Gold(task_id, choice, chosen_id, source, from_column(created_at))
