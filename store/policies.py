"""The registry of policy versions and the append-only history whose newest row says what is live.

It knows nothing of files or engines: a version is a name, a state and where it came from.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, get_args

import duckdb

from store.boundary import check_one_of, check_text
from store.canary_rows import end_by_promotion, ending, find_running
from store.clock import from_column, to_column, utc
from store.database import Store
from store.errors import BadValue, NotFound, StateConflict
from store.events import Event, new_event
from store.records import BASE_VERSION, Policy, PolicyState, Promotion
from store.writer import Decision

_COLUMNS = "version, state, parent, round_id, weights_sha256, created_at, reason"
_SERVABLE: tuple[PolicyState, ...] = ("candidate", "live", "retired")


def add_policy(
    store: Store, version: str, parent: str | None, round_id: str | None, weights_sha256: str | None
) -> Policy:
    """Register a candidate; StateConflict when it is there already, BadValue unless named `v<number>`."""
    if not _is_version(version):
        raise BadValue(f"version {version!r} must be v and a number, as next_version gives it")
    policy = Policy(version, "candidate", parent, round_id, weights_sha256, utc())
    fields = {"version": version, "parent": parent, "round_id": round_id, "weights_sha256": weights_sha256}

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Policy]:
        if cursor.execute("SELECT 1 FROM policies WHERE version = ?", [version]).fetchone():
            raise StateConflict(f"policy {version} is registered already")
        if parent is not None:
            _find(cursor, parent)
        return Decision(policy, [new_event("policy_added", policy.created_at, **fields)])

    return store.write(decide)


def next_version(store: Store) -> str:
    """The first version no policy and no round has ever had."""
    sql = """
        SELECT coalesce(max(try_cast(substr(version, 2) AS INTEGER)), 0) + 1
        FROM (SELECT version FROM policies UNION ALL SELECT version FROM rounds)"""
    with store.read() as cursor:
        row = cursor.execute(sql).fetchone()
    assert row is not None
    return f"v{row[0]}"


def mark_policy(store: Store, version: str, state: PolicyState, reason: str = "") -> Policy:
    """Set the state of a version that is not live; BadValue for `live`, which only `promote` gives.

    A canary of a version that cannot be served any more is withdrawn in the same write.
    """
    check_text("reason", reason)
    check_one_of("state", state, [known for known in get_args(PolicyState) if known != "live"])

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Policy]:
        policy = _find(cursor, version)
        if policy.state == "live":
            raise StateConflict(f"policy {version} is live; promote another one before marking it {state}")
        marked = Policy(
            version, state, policy.parent, policy.round_id, policy.weights_sha256, policy.created_at, reason
        )
        events = [marking(version, state, reason)]
        canary = find_running(cursor)
        if canary is not None and canary.version == version and state not in _SERVABLE:
            events.append(ending(cursor, canary, "withdrawn", "heed", f"it was marked {state}: {reason}"))
        return Decision(marked, events)

    return store.write(decide)


def promote(
    store: Store,
    version: str,
    actor: str,
    kind: Literal["promote", "rollback"] = "promote",
    reason: str = "",
    expected_live: str | None = None,
) -> Promotion:
    """Make a version live; StateConflict when it is live already, was rejected or failed.

    Also StateConflict when `expected_live` is not live any more: of two races that expect the same, one wins.
    A canary that runs ends in the same write.
    """
    check_text("actor", actor, may_be_empty=False)
    check_text("reason", reason)
    check_one_of("kind", kind, ("promote", "rollback"))

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Promotion]:
        live = find_live(cursor)
        _find(cursor, version)
        if expected_live not in (None, live):
            raise StateConflict(
                f"{live} is live by now, not {expected_live}; look again before promoting {version}"
            )
        if version == live:
            raise StateConflict(f"policy {version} is live already")
        find_servable(cursor, version)
        promotion = Promotion(version, live, kind, actor, reason, utc())
        fields = {"version": version, "previous": live, "kind": kind, "actor": actor, "reason": reason}
        ended = end_by_promotion(cursor, version, actor)
        return Decision(promotion, [new_event("promoted", promotion.created_at, **fields), *ended])

    return store.write(decide)


def live_version(store: Store) -> str:
    """The version everybody is served, `v0` before the first promotion."""
    with store.read() as cursor:
        return find_live(cursor)


def read_policy(store: Store, version: str) -> Policy:
    """The policy of that version; NotFound naming the newest ones when there is none."""
    with store.read() as cursor:
        return _find(cursor, version)


def read_policies(store: Store) -> list[Policy]:
    """Every version, the newest first."""
    with store.read() as cursor:
        rows = cursor.execute(f"SELECT {_COLUMNS} FROM policies ORDER BY seq DESC").fetchall()
    return [_to_policy(row) for row in rows]


def read_promotions(store: Store, limit: int = 50) -> list[Promotion]:
    """The history of what was live, the newest first."""
    columns = "version, previous, kind, actor, reason, created_at"
    with store.read() as cursor:
        rows = cursor.execute(
            f"SELECT {columns} FROM promotions ORDER BY seq DESC LIMIT ?", [limit]
        ).fetchall()
    return [_to_promotion(row) for row in rows]


def count_promotions(store: Store, since: datetime | None = None) -> dict[str, int]:
    """How often live changed, by kind ("promote", "rollback"), from `since` on or ever; both are named."""
    sql = "SELECT kind, count(*) FROM promotions WHERE created_at >= coalesce(?, created_at) GROUP BY kind"
    with store.read() as cursor:
        rows = cursor.execute(sql, [None if since is None else to_column(since)]).fetchall()
    return {"promote": 0, "rollback": 0} | dict(rows)


def require_policy(cursor: duckdb.DuckDBPyConnection, version: str) -> None:
    """NotFound when the version is not registered, for whoever holds a cursor already."""
    _find(cursor, version)


def find_live(cursor: duckdb.DuckDBPyConnection) -> str:
    """`live_version` for whoever holds a cursor already."""
    row = cursor.execute("SELECT version FROM promotions ORDER BY seq DESC LIMIT 1").fetchone()
    return row[0] if row else BASE_VERSION


def find_servable(cursor: duckdb.DuckDBPyConnection, version: str) -> Policy:
    """The policy; NotFound, or StateConflict when it was rejected or failed, for whoever holds a cursor."""
    policy = _find(cursor, version)
    if policy.state not in _SERVABLE:
        raise StateConflict(
            f"policy {version} is {policy.state} ({policy.reason or 'no reason kept'}); it cannot go live"
        )
    return policy


def marking(version: str, state: PolicyState, reason: str) -> Event:
    """The event that sets a version's state."""
    return new_event("policy_marked", utc(), version=version, state=state, reason=reason)


def _is_version(version: str) -> bool:
    return version[:1] == "v" and version[1:].isascii() and version[1:].isdecimal() and len(version) < 10


def _find(cursor: duckdb.DuckDBPyConnection, version: str) -> Policy:
    row = cursor.execute(f"SELECT {_COLUMNS} FROM policies WHERE version = ?", [version]).fetchone()
    if row is None:
        known = cursor.execute("SELECT version FROM policies ORDER BY seq DESC LIMIT 10").fetchall()
        raise NotFound(
            f"no policy is called {version!r}; the newest are {', '.join(name for (name,) in known)}"
        )
    return _to_policy(row)


def _to_promotion(row: tuple[Any, ...]) -> Promotion:
    version, previous, kind, actor, reason, created_at = row
    return Promotion(version, previous, kind, actor, reason, from_column(created_at))


def _to_policy(row: tuple[Any, ...]) -> Policy:
    version, state, parent, round_id, weights_sha256, created_at, reason = row
    return Policy(version, state, parent, round_id, weights_sha256, from_column(created_at), reason)
