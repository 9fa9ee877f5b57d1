"""Rounds as the store knows them: at most one runs at a time, and each ends in one state with a sentence."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, get_args

import duckdb

from store.boundary import check_one_of, check_text
from store.clock import from_column, utc
from store.database import Store
from store.errors import NotFound, StateConflict
from store.events import new_event
from store.ids import new_id
from store.people import find_person
from store.policies import require_policy
from store.records import RUNNING_STATES, Round, RoundState
from store.writer import Decision

_COLUMNS = """round_id, state, "trigger", parent, version, num_pairs, num_ratings, reason, created_at,
    finished_at, without_json"""
_RUNNING = f"state IN ({', '.join(repr(state) for state in RUNNING_STATES)})"


def create_round(store: Store, trigger: str, parent: str, without: Sequence[str] = ()) -> Round:
    """Queue a round that continues from `parent`; StateConflict naming the running one when there is one.

    It leaves out the labels of the people in `without`; NotFound for an id that nobody has.
    """
    check_text("trigger", trigger, may_be_empty=False)
    without = tuple(dict.fromkeys(without))
    made = Round(new_id("rd"), "queued", trigger, parent, None, 0, 0, "", utc(), without=without)

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Round]:
        running = _find_running(cursor)
        if running is not None:
            raise StateConflict(f"round {running.round_id} is {running.state}; one round runs at a time")
        require_policy(cursor, parent)
        for person_id in without:
            find_person(cursor, person_id)
        fields = {"round_id": made.round_id, "trigger": trigger, "parent": parent, "without": list(without)}
        return Decision(made, [new_event("round_created", made.created_at, **fields)])

    return store.write(decide)


def advance_round(
    store: Store,
    round_id: str,
    state: RoundState,
    reason: str = "",
    version: str | None = None,
    num_pairs: int | None = None,
    num_ratings: int | None = None,
    snapshot_seq: int | None = None,
) -> Round:
    """Move a running round to `state`, which may be its present one; what is None or empty stays as it was.

    `snapshot_seq` is the last event the round's snapshot covers: labels after it are new to the next round.
    Without it they count from the round's creation. StateConflict when the round has ended or would go back.
    """
    check_one_of("state", state, get_args(RoundState))
    check_text("reason", reason)

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Round]:
        before, now = _find(cursor, round_id), utc()
        _check_step(before, state)
        finished = state not in RUNNING_STATES
        changes = {
            "version": version,
            "num_pairs": num_pairs,
            "num_ratings": num_ratings,
            "reason": reason or None,
        }
        event = new_event(
            "round_advanced",
            now,
            round_id=round_id,
            state=state,
            finished=finished,
            snapshot_seq=snapshot_seq,
            **changes,
        )
        kept: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
        after = dataclasses.replace(before, state=state, finished_at=now if finished else None, **kept)
        return Decision(after, [event])

    return store.write(decide)


def read_round(store: Store, round_id: str) -> Round:
    """The round with that id; NotFound when there is none."""
    with store.read() as cursor:
        return _find(cursor, round_id)


def read_rounds(store: Store, limit: int = 50) -> list[Round]:
    """The newest first."""
    with store.read() as cursor:
        rows = cursor.execute(f"SELECT {_COLUMNS} FROM rounds ORDER BY seq DESC LIMIT ?", [limit]).fetchall()
    return [_to_round(row) for row in rows]


def running_round(store: Store) -> Round | None:
    """The round that is queued, preparing, training or evaluating; None when none is."""
    with store.read() as cursor:
        return _find_running(cursor)


def _check_step(before: Round, state: RoundState) -> None:
    if before.state not in RUNNING_STATES:
        raise StateConflict(f"round {before.round_id} has ended as {before.state}; it cannot become {state}")
    if state in RUNNING_STATES and RUNNING_STATES.index(state) < RUNNING_STATES.index(before.state):
        raise StateConflict(
            f"round {before.round_id} is {before.state} already; it cannot go back to {state}"
        )


def _find(cursor: duckdb.DuckDBPyConnection, round_id: str) -> Round:
    row = cursor.execute(f"SELECT {_COLUMNS} FROM rounds WHERE round_id = ?", [round_id]).fetchone()
    if row is None:
        raise NotFound(f"no round has the id {round_id!r}")
    return _to_round(row)


def _find_running(cursor: duckdb.DuckDBPyConnection) -> Round | None:
    row = cursor.execute(f"SELECT {_COLUMNS} FROM rounds WHERE {_RUNNING} ORDER BY seq LIMIT 1").fetchone()
    return _to_round(row) if row else None


def _to_round(row: tuple[Any, ...]) -> Round:
    return Round(
        round_id=row[0],
        state=row[1],
        trigger=row[2],
        parent=row[3],
        version=row[4],
        num_pairs=row[5],
        num_ratings=row[6],
        reason=row[7],
        created_at=from_column(row[8]),
        finished_at=from_column(row[9]) if row[9] else None,
        without=tuple(json.loads(row[10])),
    )
