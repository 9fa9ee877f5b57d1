"""Guidelines: what annotators are asked to do, in versions, and who has accepted which. Append-only."""

from __future__ import annotations

from datetime import datetime

import duckdb

from store.boundary import check_text
from store.clock import from_column, utc
from store.database import Store
from store.errors import BadValue, StateConflict
from store.events import new_event
from store.people import require_active
from store.records import Guidelines
from store.writer import Decision

MOST_CHARS = 50_000


def set_guidelines(store: Store, text: str, actor: str, now: datetime | None = None) -> Guidelines:
    """Save `text` (Markdown) as the next version; the newest one again when the text is the same.

    From then on everybody must accept that version once before their next task.
    """
    check_text("guidelines", text)
    if not text.strip():
        raise BadValue("the guidelines are empty; write what annotators shall do")
    if len(text) > MOST_CHARS:
        raise BadValue(f"the guidelines have {len(text)} characters; at most {MOST_CHARS} are kept")

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Guidelines]:
        newest = _find_newest(cursor)
        if newest is not None and newest.text == text:
            return Decision(newest)
        made = Guidelines(newest.version + 1 if newest else 1, text, actor, utc(now))
        event = new_event("guidelines_set", made.created_at, version=made.version, text=text, actor=actor)
        return Decision(made, [event])

    return store.write(decide)


def newest_guidelines(store: Store) -> Guidelines | None:
    """The version that holds, or None while nobody has set any."""
    with store.read() as cursor:
        return _find_newest(cursor)


def accept_guidelines(store: Store, person_id: str, version: int, now: datetime | None = None) -> None:
    """Note that the person has read and accepted the version that holds; a second time changes nothing.

    Version 0 is the text that ships with Heed, and holds while nobody has set any. StateConflict for another.
    """

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[None]:
        require_active(cursor, person_id)
        newest = _find_newest(cursor)
        holding = newest.version if newest else 0
        if version != holding:
            raise StateConflict(f"version {version} of the guidelines does not hold; accept {holding}")
        if _find_accepted(cursor, person_id) == version:
            return Decision(None)
        return Decision(
            None, [new_event("guidelines_accepted", utc(now), person_id=person_id, version=version)]
        )

    store.write(decide)


def accepted_version(store: Store, person_id: str) -> int | None:
    """The newest version this person has accepted, or None when they have accepted none."""
    with store.read() as cursor:
        return _find_accepted(cursor, person_id)


def read_versions(store: Store) -> list[Guidelines]:
    """Every version, the newest first."""
    with store.read() as cursor:
        sql = "SELECT version, text, actor, created_at FROM guidelines ORDER BY version DESC"
        rows = cursor.execute(sql).fetchall()
    return [Guidelines(version, text, actor, from_column(at)) for version, text, actor, at in rows]


def read_acceptances(store: Store) -> dict[str, int]:
    """The newest version each person has accepted, by person id; 0 is the text that ships with Heed."""
    with store.read() as cursor:
        sql = "SELECT person_id, max(version) FROM guideline_acceptances GROUP BY person_id"
        return dict(cursor.execute(sql).fetchall())


def _find_newest(cursor: duckdb.DuckDBPyConnection) -> Guidelines | None:
    row = cursor.execute(
        "SELECT version, text, actor, created_at FROM guidelines ORDER BY version DESC LIMIT 1"
    ).fetchone()
    return None if row is None else Guidelines(row[0], row[1], row[2], from_column(row[3]))


def _find_accepted(cursor: duckdb.DuckDBPyConnection, person_id: str) -> int | None:
    row = cursor.execute(
        "SELECT max(version) FROM guideline_acceptances WHERE person_id = ?", [person_id]
    ).fetchone()
    return None if row is None else row[0]
