"""Ratings: a tester's thumbs on completions. Append-only; the newest of a person on a completion counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import duckdb

from store.boundary import check_one_of, check_reasons, check_text
from store.clock import from_column, utc
from store.database import Store
from store.errors import NotFound
from store.events import Event, new_event
from store.ids import new_id
from store.people import require_active
from store.records import Rating
from store.writer import Decision

COLUMNS = """r.rating_id, r.completion_id, r.person_id, r.value, r.created_at, r.reasons_json, r.comment,
    r.correction"""


def save_rating(
    store: Store,
    completion_id: str,
    person_id: str,
    value: Literal[-1, 0, 1],
    reasons: Sequence[str] = (),
    comment: str = "",
    correction: str | None = None,
) -> Rating:
    """Save a thumb: 1 desirable, -1 undesirable, 0 takes it back. The same again changes nothing."""
    check_one_of("rating", value, (-1, 0, 1))
    check_text("comment", comment)
    if correction is not None:
        check_text("correction", correction, may_be_empty=False)
    rating = Rating(
        new_id("r"), completion_id, person_id, value, utc(), check_reasons(reasons), comment, correction
    )

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Rating]:
        require_active(cursor, person_id)
        if not cursor.execute(
            "SELECT 1 FROM completions WHERE completion_id = ?", [completion_id]
        ).fetchone():
            raise NotFound(f"no completion has the id {completion_id!r}")
        newest = _find_newest(cursor, completion_id, person_id)
        if newest and newest == replace(rating, rating_id=newest.rating_id, created_at=newest.created_at):
            return Decision(newest)
        return Decision(rating, [_to_event(rating)])

    return store.write(decide)


def read_rating(store: Store, completion_id: str, person_id: str) -> Rating | None:
    """What this person last said of the answer, taken back or not; None when they never said anything."""
    with store.read() as cursor:
        return _find_newest(cursor, completion_id, person_id)


def to_rating(row: tuple[Any, ...]) -> Rating:
    """A row of `COLUMNS` as a record."""
    rating_id, completion_id, person_id, value, created_at, reasons_json, comment, correction = row
    reasons = tuple(json.loads(reasons_json))
    return Rating(
        rating_id, completion_id, person_id, value, from_column(created_at), reasons, comment, correction
    )


def _find_newest(cursor: duckdb.DuckDBPyConnection, completion_id: str, person_id: str) -> Rating | None:
    sql = f"""
        SELECT {COLUMNS} FROM ratings AS r
        WHERE r.completion_id = ? AND r.person_id = ? ORDER BY r.seq DESC LIMIT 1"""
    row = cursor.execute(sql, [completion_id, person_id]).fetchone()
    return to_rating(row) if row else None


def _to_event(rating: Rating) -> Event:
    return new_event(
        "rating_saved",
        rating.created_at,
        rating_id=rating.rating_id,
        completion_id=rating.completion_id,
        person_id=rating.person_id,
        value=rating.value,
        reasons=list(rating.reasons),
        comment=rating.comment,
        correction=rating.correction,
    )
