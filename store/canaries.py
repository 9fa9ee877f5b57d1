"""Canaries: a share of conversations on trial with a version that is not live. One runs at a time.

It knows no engine and no rule of when to end one: it starts, ends and counts.
"""

from __future__ import annotations

import duckdb

from store.boundary import check_text
from store.canary_rows import COLUMNS, Canary, Outcome, Sides, count_sides, ending, find_running, to_canary
from store.clock import utc
from store.database import Store
from store.errors import BadValue, StateConflict
from store.events import Event, new_event
from store.ids import new_id
from store.policies import find_live, find_servable, marking
from store.writer import Decision


def start_canary(
    store: Store,
    version: str,
    share: float,
    actor: str,
    reason: str = "",
    expected_live: str | None = None,
    supersede: bool = False,
) -> Canary:
    """Begin to give `version` a share of conversations, between 0 and 1; NotFound for an unknown version.

    StateConflict when it is live, was rejected or failed, when `expected_live` is live no more, or when
    another canary runs; with `supersede` that one ends in the same write.
    """
    check_text("actor", actor, may_be_empty=False)
    check_text("reason", reason)
    if not 0.0 < share < 1.0:
        raise BadValue(f"share {share} must lie between 0 and 1")

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Canary]:
        live = find_live(cursor)
        if expected_live not in (None, live):
            raise StateConflict(f"{live} is live by now, not {expected_live}; look again before a canary")
        if version == live:
            raise StateConflict(f"policy {version} is live already; a canary is another version")
        find_servable(cursor, version)
        events = _end_earlier(cursor, version, actor, supersede)
        made = Canary(new_id("ca"), version, live, share, actor, reason, utc())
        fields = {"canary_id": made.canary_id, "version": version, "live": live, "share": share}
        started = new_event("canary_started", made.created_at, **fields, actor=actor, reason=reason)
        return Decision(made, [*events, started])

    return store.write(decide)


def end_canary(
    store: Store, canary_id: str, outcome: Outcome, actor: str, reason: str, *, reject: bool = False
) -> Canary:
    """End the canary that runs; StateConflict when it is not that one (any more).

    With `reject` a candidate is marked rejected in the same write, so that nobody promotes it by mistake.
    """
    check_text("actor", actor, may_be_empty=False)
    check_text("reason", reason)

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[None]:
        running = find_running(cursor)
        if running is None or running.canary_id != canary_id:
            raise StateConflict(f"canary {canary_id} does not run any more")
        events = [ending(cursor, running, outcome, actor, reason)]
        if reject and find_servable(cursor, running.version).state == "candidate":
            events.append(marking(running.version, "rejected", reason))
        return Decision(None, events)

    store.write(decide)
    return read_canaries(store, canary_id=canary_id)[0]


def read_canary(store: Store) -> Canary | None:
    """The canary that runs; None when none does."""
    with store.read() as cursor:
        return find_running(cursor)


def read_canaries(store: Store, limit: int = 20, canary_id: str | None = None) -> list[Canary]:
    """The newest first, the running one among them; or the one with that id."""
    sql = f"SELECT {COLUMNS} FROM canaries WHERE canary_id = coalesce(?, canary_id) ORDER BY seq DESC LIMIT ?"
    with store.read() as cursor:
        return [to_canary(row) for row in cursor.execute(sql, [canary_id, limit]).fetchall()]


def read_sides(store: Store, canary: Canary) -> Sides:
    """What both sides have come to: counted now while it runs, as it was at its end afterwards."""
    if canary.outcome is not None:
        return Sides.of(canary.numbers)
    with store.read() as cursor:
        return count_sides(cursor, canary)


def _end_earlier(cursor: duckdb.DuckDBPyConnection, version: str, actor: str, supersede: bool) -> list[Event]:
    running = find_running(cursor)
    if running is None:
        return []
    if not supersede or running.version == version:
        raise StateConflict(f"{running.version} is on trial as a canary; one runs at a time, stop it first")
    return [ending(cursor, running, "superseded", actor, f"{version} came after it")]
