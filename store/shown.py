"""A task as a person would look at it: what was asked, the answers, and how many said what. No names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import duckdb

from store.database import Store
from store.errors import NotFound
from store.records import Message, TaskKind


@dataclass(frozen=True, slots=True)
class ShownTask:
    """`votes` counts standing acts: a preference under the id of the chosen completion, others by choice."""

    task_id: str
    kind: TaskKind
    messages: tuple[Message, ...]
    completion_ids: tuple[str, ...]
    texts: tuple[str, ...]
    votes: dict[str, int] = field(default_factory=dict)

    def text_of(self, completion_id: str | None) -> str:
        """The answer of that id, "" when it is none of this task's."""
        return dict(zip(self.completion_ids, self.texts, strict=True)).get(completion_id or "", "")


def read_shown_tasks(store: Store, task_ids: Sequence[str]) -> dict[str, ShownTask]:
    """Those of the tasks that exist, by id; three queries, however many there are."""
    with store.read() as cursor:
        return _read(cursor, list(task_ids)) if task_ids else {}


def read_shown_task(store: Store, task_id: str) -> ShownTask:
    """The task of that id; NotFound when there is none."""
    found = read_shown_tasks(store, [task_id]).get(task_id)
    if found is None:
        raise NotFound(f"no task has the id {task_id!r}")
    return found


def _read(cursor: duckdb.DuckDBPyConnection, task_ids: list[str]) -> dict[str, ShownTask]:
    sql = "SELECT task_id, kind, first_id, second_id FROM tasks WHERE list_contains(?, task_id)"
    tasks = cursor.execute(sql, [task_ids]).fetchall()
    wanted = [completion_id for *_, first, second in tasks for completion_id in (first, second)]
    sql = "SELECT completion_id, text, messages_json FROM completions WHERE list_contains(?, completion_id)"
    texts = {row[0]: row[1:] for row in cursor.execute(sql, [[each for each in wanted if each]]).fetchall()}
    votes = _count_votes(cursor, task_ids)
    found = {}
    for task_id, kind, first, second in tasks:
        ids = (first,) if second is None else (first, second)
        messages = tuple(json.loads(texts[first][1]))
        shown = tuple(texts[each][0] for each in ids)
        found[task_id] = ShownTask(task_id, kind, messages, ids, shown, votes.get(task_id, {}))
    return found


def _count_votes(cursor: duckdb.DuckDBPyConnection, task_ids: list[str]) -> dict[str, dict[str, int]]:
    sql = """
        SELECT task_id, coalesce(chosen_id, choice), count(DISTINCT person_id) FROM judgements
        WHERE NOT undone AND list_contains(?, task_id) GROUP BY ALL ORDER BY ALL"""
    votes: dict[str, dict[str, int]] = {}
    for task_id, what, many in cursor.execute(sql, [task_ids]).fetchall():
        votes.setdefault(task_id, {})[what] = many
    return votes
