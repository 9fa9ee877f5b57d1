"""Looking back on one's own acts: what a person said of a task before, and their last few decisions."""

from __future__ import annotations

import json
from dataclasses import dataclass

from store.database import Store
from store.judgements import COLUMNS, to_judgement
from store.records import Judgement, Task
from store.tasks import find_task


@dataclass(frozen=True, slots=True)
class Decision:
    """One standing act with the last message of the prompt it is about."""

    judgement: Judgement
    prompt: str


def read_last_act(store: Store, person_id: str, task_id: str) -> tuple[Task, Judgement] | None:
    """The task and the newest thing this person did to it, taken back or not; None when they never did."""
    sql = f"""
        SELECT {COLUMNS} FROM judgements AS j WHERE j.task_id = ? AND j.person_id = ?
        ORDER BY j.seq DESC LIMIT 1"""
    with store.read() as cursor:
        row = cursor.execute(sql, [task_id, person_id]).fetchone()
        return None if row is None else (find_task(cursor, task_id), to_judgement(row))


def read_decisions(store: Store, person_id: str, limit: int = 10) -> list[Decision]:
    """This person's standing acts on tasks that were handed out, the newest first."""
    sql = f"""
        SELECT {COLUMNS}, p.messages_json FROM judgements AS j
        JOIN tasks AS t USING (task_id) JOIN prompts AS p USING (prompt_id)
        WHERE j.person_id = ? AND NOT j.undone AND t.purpose <> 'chat' ORDER BY j.seq DESC LIMIT ?"""
    with store.read() as cursor:
        rows = cursor.execute(sql, [person_id, limit]).fetchall()
    return [Decision(to_judgement(row), json.loads(row[-1])[-1]["content"]) for row in rows]
