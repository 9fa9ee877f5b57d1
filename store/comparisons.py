"""Comparisons: two answers of one chat turn, judged by whoever asked. Nobody was handed a task for it.

The task and the judgement are written together, so the task is never open: it wants one judgement and has it.
Append-only; a later verdict on the same two answers takes the earlier one back and stands in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import duckdb

from store import judgements
from store.boundary import check_one_of, check_reasons, check_text
from store.clock import utc
from store.completions import find_completion
from store.database import Store
from store.errors import BadValue, NotFound
from store.events import Event, new_event
from store.ids import new_id
from store.judgements import judgement_event, to_judgement
from store.labels import prompt_id_of
from store.people import require_active
from store.records import STRENGTHS, Completion, Judgement, Task
from store.repeats import task_event
from store.writer import Decision

ComparisonChoice = Literal["prefer", "tie", "both_bad"]


def save_comparison(
    store: Store,
    person_id: str,
    first_id: str,
    second_id: str,
    *,
    choice: ComparisonChoice,
    chosen_id: str | None = None,
    strength: int = 0,
    left_id: str | None = None,
    reasons: Sequence[str] = (),
    comment: str = "",
    unsafe_ids: Sequence[str] = (),
    active_ms: int | None = None,
) -> Judgement:
    """Save which of two answers to this person is better; both must answer the same messages.

    `chosen_id` and `strength` count for `prefer` alone. The same verdict again gives the first one back,
    whatever its `active_ms` and `left_id`; another one supersedes it. Raises BadValue, and NotFound for an
    answer to somebody else.
    """
    given = _check(first_id, second_id, choice, chosen_id, strength, left_id)
    given = replace(
        given,
        person_id=person_id,
        reasons=check_reasons(reasons),
        comment=check_text("comment", comment),
        unsafe_ids=tuple(sorted(set(unsafe_ids))),
        active_ms=active_ms,
    )
    if active_ms is not None and not 0 <= active_ms < 2**53:
        raise BadValue(f"active_ms {active_ms} must be a number of milliseconds, 0 or more")
    for unsafe_id in given.unsafe_ids:
        check_one_of("unsafe answer", unsafe_id, (first_id, second_id))

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Judgement]:
        require_active(cursor, person_id)
        earlier = _find_standing(cursor, person_id, first_id, second_id)
        if earlier is None:
            task = _make_task(*(_find_own(cursor, person_id, each) for each in (first_id, second_id)))
            saved = replace(given, task_id=task.task_id)
            return Decision(saved, [task_event(task), judgement_event(saved)])
        saved = replace(given, task_id=earlier.task_id)
        if _is_same(earlier, saved):
            return Decision(earlier)
        return Decision(saved, [_undone(earlier), judgement_event(saved)])

    return store.write(decide)


def undo_comparison(store: Store, person_id: str, first_id: str, second_id: str) -> Judgement | None:
    """Take back this person's verdict on the two answers, in either order; None when there is none.

    Its task is closed with it, so that the question does not go to anybody else.
    """

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Judgement | None]:
        require_active(cursor, person_id)
        earlier = _find_standing(cursor, person_id, first_id, second_id)
        if earlier is None:
            return Decision(None)
        closed = new_event("tasks_retired", utc(), task_ids=[earlier.task_id], version_kept="")
        return Decision(replace(earlier, undone=True), [_undone(earlier), closed])

    return store.write(decide)


def _check(
    first_id: str, second_id: str, choice: str, chosen_id: str | None, strength: int, left_id: str | None
) -> Judgement:
    """The judgement as far as the call alone decides it."""
    both = (first_id, second_id)
    if first_id == second_id:
        raise BadValue(f"answer {first_id} cannot be compared with itself; name two answers")
    check_one_of("choice of a comparison", choice, get_args(ComparisonChoice))
    if left_id is not None:
        check_one_of("the answer on the left", left_id, both)
    bare = Judgement(new_id("j"), "", "", "tie", utc(), left_id=left_id)
    if choice != "prefer":
        return replace(bare, choice="both_bad") if choice == "both_bad" else bare
    check_one_of("the better answer", chosen_id, both)
    check_one_of("strength", strength, STRENGTHS)
    rejected_id = second_id if chosen_id == first_id else first_id
    return replace(bare, choice="prefer", chosen_id=chosen_id, rejected_id=rejected_id, strength=strength)


def _find_own(cursor: duckdb.DuckDBPyConnection, person_id: str, completion_id: str) -> Completion:
    found = find_completion(cursor, completion_id)
    if found is None or found.person_id != person_id:
        raise NotFound(f"there is no answer {completion_id!r} to this person")
    if found.finish_reason == "cancelled":
        raise BadValue(f"answer {completion_id} was stopped before its end, so it cannot be compared")
    return found


def _make_task(first: Completion, second: Completion) -> Task:
    if first.messages != second.messages:
        raise BadValue(
            f"answers {first.completion_id} and {second.completion_id} were given to different messages;"
            " only answers to the same ones can be compared"
        )
    ids = (first.completion_id, second.completion_id)
    return Task(new_id("t"), "pair", prompt_id_of(first), ids, first.version, 1, utc(), purpose="chat")


def _find_standing(
    cursor: duckdb.DuckDBPyConnection, person_id: str, first_id: str, second_id: str
) -> Judgement | None:
    sql = f"""
        SELECT {judgements.COLUMNS} FROM judgements AS j JOIN tasks AS t USING (task_id)
        WHERE j.person_id = ? AND NOT j.undone AND t.purpose = 'chat'
        AND list_contains(?, t.first_id) AND list_contains(?, t.second_id) ORDER BY j.seq DESC LIMIT 1"""
    both = [first_id, second_id]
    row = cursor.execute(sql, [person_id, both, both]).fetchone()
    return to_judgement(row) if row else None


def _is_same(earlier: Judgement, again: Judgement) -> bool:
    """What was said, not how long it took or where it stood."""
    aside = {
        "judgement_id": earlier.judgement_id,
        "created_at": earlier.created_at,
        "active_ms": earlier.active_ms,
        "left_id": earlier.left_id,
    }
    return replace(again, **aside) == earlier  # type: ignore[arg-type]


def _undone(judgement: Judgement) -> Event:
    return new_event(
        "judgement_undone",
        utc(),
        judgement_id=judgement.judgement_id,
        task_id=judgement.task_id,
        person_id=judgement.person_id,
        choice=judgement.choice,
    )
