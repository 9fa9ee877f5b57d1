"""What the queue is filled with when the store opens: one reading of the tables, with SQL, in bulk."""

from __future__ import annotations

from collections import Counter
from typing import Any

import duckdb

from store.clock import from_column
from store.open_tasks import Filling
from store.records import Task
from store.shelf import Entry

TASK_COLUMNS = """t.task_id, t.kind, t.prompt_id, t.first_id, t.second_id, t.version, t.wanted, t.created_at,
    t.purpose, t.priority, t.repeat_of, t.only_for"""
_CAN_BE_HANDED_OUT = """
    SELECT task_id FROM tasks WHERE task_id IN (SELECT task_id FROM gold)
        OR (NOT retired AND num_accepted < wanted AND purpose <> 'chat'
            AND task_id NOT IN (SELECT task_id FROM adjudications))"""


def read_filling(cursor: duckdb.DuckDBPyConnection) -> Filling:
    """Every task that can be handed out, with who acted on it; who is switched off; acts a person."""
    people = cursor.execute("SELECT person_id, active FROM people").fetchall()
    active = {person_id for person_id, is_active in people if is_active}
    inactive = {person_id for person_id, is_active in people if not is_active}
    sql = (
        "SELECT person_id, count(*) FROM judgements WHERE NOT undone AND choice <> 'skip' GROUP BY person_id"
    )
    num_acts = Counter(dict(cursor.execute(sql).fetchall()))
    return Filling(_read_entries(cursor, _CAN_BE_HANDED_OUT, []), active, inactive, num_acts)


def read_entries(cursor: duckdb.DuckDBPyConnection, task_ids: list[str]) -> list[Entry]:
    """Those tasks as they stand, finished and closed ones too."""
    return _read_entries(cursor, "SELECT unnest(?)", [task_ids]) if task_ids else []


def to_task(row: tuple[Any, ...]) -> Task:
    """A row of `TASK_COLUMNS` as a record."""
    task_id, kind, prompt_id, first_id, second_id, version, wanted, created_at, *newer = row
    completion_ids = (first_id,) if second_id is None else (first_id, second_id)
    return Task(task_id, kind, prompt_id, completion_ids, version, wanted, from_column(created_at), *newer)


def _read_entries(cursor: duckdb.DuckDBPyConnection, ids_sql: str, parameters: list[Any]) -> list[Entry]:
    sql = f"""
        SELECT {TASK_COLUMNS}, t.seq, t.num_accepted, task_id IN (SELECT task_id FROM gold),
            t.retired OR task_id IN (SELECT task_id FROM adjudications)
        FROM tasks AS t WHERE task_id IN ({ids_sql}) ORDER BY t.seq"""
    entries: dict[str, Entry] = {}
    names: dict[str, str] = {}  # a version is one text in memory, not one a row
    for *columns, age, accepted, is_gold, is_closed in cursor.execute(sql, parameters).fetchall():
        columns[5] = names.setdefault(columns[5], columns[5])
        entry = Entry(to_task(tuple(columns)), age, accepted, is_gold=is_gold, is_closed=is_closed)
        entries[entry.task.task_id] = entry
    sql = f"""
        SELECT task_id, person_id, choice = 'skip' FROM judgements
        WHERE NOT undone AND task_id IN ({ids_sql})"""
    for task_id, person_id, is_skip in cursor.execute(sql, parameters).fetchall():
        entry = entries[task_id]
        entry.acted.append(names.setdefault(person_id, person_id))
        entry.num_skips += is_skip
    return list(entries.values())
