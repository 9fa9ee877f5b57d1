"""Adjudications: an admin's verdict on a task people could not agree on, and which tasks wait for one.

The newest verdict of a task supersedes its votes; a newest `skip` takes it back. Nothing here tells versions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import duckdb

from store.boundary import check_one_of, check_text
from store.clock import utc
from store.database import Store
from store.effective import QualitySettings
from store.errors import BadValue, NotAllowed
from store.events import new_event
from store.ids import new_id
from store.judged import ADJUDICATION_COLUMNS, to_adjudication
from store.judgements import CHOICES
from store.pair_votes import STANDING_ADJUDICATIONS
from store.people import find_person, require_active
from store.records import STRENGTHS, Adjudication, Choice, Task
from store.tasks import find_task
from store.writer import Decision


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that waits for a verdict, by its figures alone; `total` is how many wait in all."""

    task_id: str
    num_skips: int
    agreement: float | None
    total: int


@dataclass(frozen=True, slots=True)
class Disputed:
    """A task that waits for a verdict. `votes` counts standing choices, for the pair's sides as first and
    second.

    `agreement` is the share of the commonest vote, None without votes; `comments` are what people wrote.
    """

    task: Task
    votes: dict[str, int]
    num_skips: int
    agreement: float | None
    comments: tuple[str, ...]


def save_adjudication(
    store: Store,
    task_id: str,
    person_id: str,
    *,
    choice: Choice,
    chosen_id: str | None = None,
    rejected_id: str | None = None,
    strength: int = 0,
    comment: str = "",
) -> Adjudication:
    """Save an admin's verdict; NotAllowed for anyone else. `skip` takes the verdict before it back.

    The same verdict again gives the first one; BadValue when it does not fit the task or there is none to
    take back.
    """
    check_text("comment", comment)

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Adjudication]:
        require_active(cursor, person_id)
        person, task = find_person(cursor, person_id), find_task(cursor, task_id)
        if person.role != "admin":
            raise NotAllowed(f"{person.name} is no admin; a verdict is an admin's")
        given = _check(task, person_id, choice, chosen_id, rejected_id, strength, comment)
        before = _find_newest(cursor, task_id)
        if choice == "skip" and (before is None or before.choice == "skip"):
            raise BadValue(f"task {task_id} has no verdict to take back")
        if before is not None and _says(before) == _says(given):
            return Decision(before)
        fields = {name: getattr(given, name) for name in Adjudication.__slots__ if name != "created_at"}
        return Decision(given, [new_event("adjudicated", given.created_at, **fields)])

    return store.write(decide)


def read_task_to_decide(store: Store, task_id: str) -> Task:
    """The task with that id; NotFound when there is none."""
    with store.read() as cursor:
        return find_task(cursor, task_id)


def read_adjudications(store: Store, limit: int = 50) -> list[Adjudication]:
    """Every verdict, the newest first, those taken back or replaced included."""
    sql = f"SELECT {ADJUDICATION_COLUMNS} FROM adjudications AS a ORDER BY a.seq DESC LIMIT ?"
    with store.read() as cursor:
        return [to_adjudication(row) for row in cursor.execute(sql, [limit]).fetchall()]


def read_disputed(store: Store, settings: QualitySettings, limit: int = 50) -> list[Disputed]:
    """The first of `find_disputed`, each with its task, its votes and what people wrote."""
    return [describe_disputed(store, waiting) for waiting in find_disputed(store, settings, limit)]


def find_disputed(store: Store, settings: QualitySettings, limit: int | None = None) -> list[Waiting]:
    """Tasks that wait for a verdict, those with the least agreement first.

    People disagree (enough votes, agreement below the setting), or several have skipped it. Gold and repeats
    never wait; neither does a task that has its verdict.
    """
    # A task is named before its votes are read: nearly all of them are agreed on.
    sql = f"""
        WITH tallies AS (
            SELECT t.task_id, any_value(t.seq) AS seq, count_if(choice = 'skip') AS num_skips,
                count_if(choice <> 'skip') AS num_votes,
                greatest(count_if(chosen_id = first_id), count_if(chosen_id = second_id),
                    count_if(choice = 'tie'), count_if(choice = 'both_bad'), count_if(choice = 'up'),
                    count_if(choice = 'down')) AS most
            FROM judgements AS j JOIN tasks AS t USING (task_id)
            WHERE NOT undone AND purpose <> 'repeat' GROUP BY t.task_id)
        SELECT task_id, num_skips, most / nullif(num_votes, 0) AS agreement, count(*) OVER () FROM tallies
        WHERE ((num_votes >= $votes AND most < $agreement * num_votes) OR num_skips >= $skips)
            AND task_id NOT IN (SELECT task_id FROM gold)
            AND task_id NOT IN (SELECT task_id FROM {STANDING_ADJUDICATIONS})
        ORDER BY coalesce(agreement, 0), seq LIMIT $limit"""
    needed = {
        "votes": settings.dispute_votes,
        "agreement": settings.dispute_agreement,
        "skips": store.queue.settings.skips_to_adjudicate,
        "limit": limit,
    }
    with store.read() as cursor:
        return [Waiting(*row) for row in cursor.execute(sql, needed).fetchall()]


def describe_disputed(store: Store, waiting: Waiting) -> Disputed:
    """What an admin needs to decide it."""
    sql = "SELECT choice, chosen_id, comment FROM judgements WHERE task_id = ? AND NOT undone ORDER BY seq"
    with store.read() as cursor:
        task = find_task(cursor, waiting.task_id)
        acts = cursor.execute(sql, [waiting.task_id]).fetchall()
    names = dict(zip(task.completion_ids, ("first", "second"), strict=False))
    said = [names.get(chosen_id, choice) for choice, chosen_id, _ in acts if choice != "skip"]
    comments = tuple(comment for _, _, comment in acts if comment)
    return Disputed(task, dict(Counter(said)), waiting.num_skips, waiting.agreement, comments)


def _check(
    task: Task,
    person_id: str,
    choice: Choice,
    chosen_id: str | None,
    rejected_id: str | None,
    strength: int,
    comment: str,
) -> Adjudication:
    check_one_of(f"choice for {task.kind} {task.task_id}", choice, CHOICES[task.kind])
    if choice != "prefer":
        chosen_id, rejected_id, strength = None, None, 0
    elif {chosen_id, rejected_id} != set(task.completion_ids):
        raise BadValue(f"chosen and rejected must be the two completions of task {task.task_id}")
    else:
        check_one_of("strength", strength, STRENGTHS)
    made = (new_id("a"), task.task_id, person_id, choice, utc())
    return Adjudication(*made, chosen_id, rejected_id, strength, comment)


def _says(verdict: Adjudication) -> tuple[object, ...]:
    return (
        verdict.person_id,
        verdict.choice,
        verdict.chosen_id,
        verdict.strength,
        verdict.comment,
    )


def _find_newest(cursor: duckdb.DuckDBPyConnection, task_id: str) -> Adjudication | None:
    sql = (
        f"SELECT {ADJUDICATION_COLUMNS} FROM adjudications AS a WHERE task_id = ? ORDER BY a.seq DESC LIMIT 1"
    )
    row = cursor.execute(sql, [task_id]).fetchone()
    return to_adjudication(row) if row else None
