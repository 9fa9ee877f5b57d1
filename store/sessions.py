"""Signing in: sessions of seven days and links that work once. No facts: losing one costs a sign-in."""

from __future__ import annotations

import hmac
import secrets
from datetime import datetime, timedelta

import duckdb

from store.clock import from_column, to_column, utc
from store.database import Store
from store.people import COLUMNS, digest_of, find_person, require_active, to_active_person
from store.records import Person
from store.writer import Decision

SESSION_LIFE = timedelta(days=7)
LINK_LIFE = timedelta(hours=24)


def open_session(store: Store, person_id: str, now: datetime | None = None) -> str:
    """Sign an active person in for seven days; returns the session's token."""
    return _issue(store, "sessions", person_id, SESSION_LIFE, now)


def find_session(store: Store, token: str, now: datetime | None = None) -> Person | None:
    """Who this session belongs to; None when it ended, expired or never was."""
    digest = digest_of(token)
    sql = f"""
        SELECT {COLUMNS}, sessions.token_sha256, expires_at FROM sessions JOIN people USING (person_id)
        WHERE sessions.token_sha256 = ?"""

    def look_up() -> tuple[str, tuple[Person, datetime]] | None:
        with store.read() as cursor:
            row = cursor.execute(sql, [digest]).fetchone()
        person = to_active_person(row) if row and hmac.compare_digest(row[6], digest) else None
        return (person.person_id, (person, from_column(row[7]))) if row and person else None

    found = store.roster.sessions.find(digest, look_up)
    return found[0] if found and found[1] > utc(now) else None


def find_known_session(store: Store, token: str, now: datetime | None = None) -> Person | None:
    """`find_session` when the answer is kept in memory; None: look it up."""
    found = store.roster.sessions.known(digest_of(token))
    return found[0] if found and found[1] > utc(now) else None


def end_session(store: Store, token: str) -> None:
    """Sign out; harmless when the session is gone already."""
    digest = digest_of(token)

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[None]:
        cursor.execute("DELETE FROM sessions WHERE token_sha256 = ?", [digest])
        return Decision(None)

    try:
        store.write(decide)
    finally:
        store.roster.sessions.drop(digest)


def make_sign_in_link(store: Store, person_id: str, now: datetime | None = None) -> str:
    """A token that signs this active person in once, within 24 hours."""
    return _issue(store, "sign_in_links", person_id, LINK_LIFE, now)


def redeem_sign_in_link(store: Store, token: str, now: datetime | None = None) -> Person | None:
    """Whose link this is, using it up; None when it was used, expired or never made."""
    digest = digest_of(token)

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Person | None]:
        sql = "SELECT person_id FROM sign_in_links WHERE token_sha256 = ? AND expires_at > ?"
        row = cursor.execute(sql, [digest, to_column(utc(now))]).fetchone()
        if row is None:
            return Decision(None)
        person = find_person(cursor, row[0])
        cursor.execute("DELETE FROM sign_in_links WHERE token_sha256 = ?", [digest])
        return Decision(person if person.active else None)

    return store.write(decide)


def _issue(store: Store, table: str, person_id: str, life: timedelta, now: datetime | None) -> str:
    token, moment = secrets.token_urlsafe(32), utc(now)

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[str]:
        require_active(cursor, person_id)
        cursor.execute(f"DELETE FROM {table} WHERE expires_at <= ?", [to_column(moment)])
        cursor.execute(
            f"INSERT INTO {table} VALUES (?, ?, ?)", [digest_of(token), person_id, to_column(moment + life)]
        )
        return Decision(token)

    return store.write(decide)
