"""People: who they are, their password and API token.

Secrets are returned once and kept only as hashes: scrypt for what a person types, SHA-256 for 256-bit tokens.
It knows nothing of cookies, rates or pages.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import secrets
import unicodedata
from dataclasses import dataclass
from typing import Any, get_args

import duckdb

from store.boundary import check_name, check_one_of, check_text
from store.clock import from_column, utc
from store.database import Store
from store.errors import BadValue, NotAllowed, NotFound, StateConflict
from store.events import new_event
from store.ids import new_id
from store.records import Person, Role
from store.writer import Decision

MIN_PASSWORD_CHARS = 8
MAX_PASSWORD_CHARS = 1024  # scrypt time does not grow with it, but a request body should not be a password

_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**14, 8, 1
# Checked when the name is unknown, so that the answer takes as long as for a known one. No password fits it.
_DUMMY_HASH = f"scrypt${_SCRYPT_N}${_SCRYPT_R}${_SCRYPT_P}${'00' * 16}${'00' * 32}"
COLUMNS = "person_id, name, role, active, created_at, trained_on"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A new person with the two secrets nobody can read again."""

    person: Person
    password: str
    token: str


def add_person(store: Store, name: str, role: Role, password: str | None = None) -> Credentials:
    """Add an active person, with a random password when None; StateConflict when the name is taken."""
    name = check_name(name)
    check_one_of("role", role, get_args(Role))
    password = secrets.token_urlsafe(12) if password is None else _check_password_text(password)
    token = secrets.token_urlsafe(32)
    person = Person(new_id("u"), name, role, active=True, created_at=utc())
    event = new_event(
        "person_added",
        person.created_at,
        person_id=person.person_id,
        name=name,
        name_key=_name_key(name),
        role=role,
        password_hash=hash_password(password),
        token_sha256=digest_of(token),
    )

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Credentials]:
        if cursor.execute("SELECT 1 FROM people WHERE name_key = ?", [_name_key(name)]).fetchone():
            raise StateConflict(f"there is already a person called {name!r}; choose another name")
        return Decision(Credentials(person, password, token), [event])

    return store.write(decide)


def read_people(store: Store) -> list[Person]:
    """Everybody, the longest-standing first."""
    with store.read() as cursor:
        rows = cursor.execute(f"SELECT {COLUMNS} FROM people ORDER BY seq").fetchall()
    return [_to_person(row) for row in rows]


def read_person(store: Store, person_id: str) -> Person:
    """The person with that id, active or not; NotFound when there is none."""
    with store.read() as cursor:
        return find_person(cursor, person_id)


def find_person(cursor: duckdb.DuckDBPyConnection, person_id: str) -> Person:
    """`read_person` for whoever holds a cursor already."""
    row = cursor.execute(f"SELECT {COLUMNS} FROM people WHERE person_id = ?", [person_id]).fetchone()
    if row is None:
        raise NotFound(f"no person has the id {person_id!r}")
    return _to_person(row)


def find_by_name(store: Store, name: str) -> Person:
    """The person called that, upper and lower case alike; NotFound when there is none."""
    with store.read() as cursor:
        sql = f"SELECT {COLUMNS} FROM people WHERE name_key = ?"
        row = cursor.execute(sql, [_name_key(check_name(name))]).fetchone()
    if row is None:
        raise NotFound(f"nobody is called {name!r}")
    return _to_person(row)


def require_active(cursor: duckdb.DuckDBPyConnection, person_id: str) -> None:
    """NotAllowed when an admin has deactivated the person; NotFound when they never existed."""
    person = find_person(cursor, person_id)
    if not person.active:
        raise NotAllowed(f"{person.name} has been deactivated")


def require_person(store: Store, person_id: str) -> Person:
    """`require_active` from what is kept in memory, and the person."""

    def look_up() -> tuple[str, Person]:
        return person_id, read_person(store, person_id)

    person = store.roster.people.find(person_id, look_up)
    assert person is not None
    if not person.active:
        raise NotAllowed(f"{person.name} has been deactivated")
    return person


def set_active(store: Store, person_id: str, active: bool, actor: str) -> Person:
    """Switch a person on or off; off ends their sessions and links at once and frees their leases."""
    event = new_event("person_active_set", utc(), person_id=person_id, active=bool(active), actor=actor)

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Person]:
        person = find_person(cursor, person_id)
        if not active:
            store.queue.let_go(person_id)
            for table in ("sessions", "sign_in_links"):
                cursor.execute(f"DELETE FROM {table} WHERE person_id = ?", [person_id])
        changed = dataclasses.replace(person, active=bool(active))
        return Decision(changed, [event] if person.active != active else [])

    return store.write(decide)


def set_role(store: Store, person_id: str, role: Role, actor: str) -> Person:
    """Give a person another role; it counts from their next request on."""
    check_one_of("role", role, get_args(Role))
    event = new_event("person_role_set", utc(), person_id=person_id, role=role, actor=actor)

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Person]:
        person = find_person(cursor, person_id)
        changed = dataclasses.replace(person, role=role)
        return Decision(changed, [event] if changed != person else [])

    return store.write(decide)


def set_trained_on(store: Store, person_id: str, trained_on: bool, actor: str, reason: str = "") -> Person:
    """Leave a person's labels out of the next rounds, or take them in again; the labels themselves stay."""
    check_text("reason", reason)
    fields = {"person_id": person_id, "trained_on": bool(trained_on), "actor": actor, "reason": reason}
    event = new_event("person_trained_on_set", utc(), **fields)

    def decide(cursor: duckdb.DuckDBPyConnection) -> Decision[Person]:
        person = find_person(cursor, person_id)
        changed = dataclasses.replace(person, trained_on=bool(trained_on))
        return Decision(changed, [event] if changed != person else [])

    return store.write(decide)


def check_password(store: Store, name: str, password: str) -> Person | None:
    """The active person with that name and password, or None; takes as long when there is no such name."""
    row = None
    if isinstance(name, str) and isinstance(password, str) and len(password) <= MAX_PASSWORD_CHARS:
        with store.read() as cursor:
            sql = f"SELECT {COLUMNS}, password_hash FROM people WHERE name_key = ?"
            row = cursor.execute(sql, [_name_key(name.encode(errors="replace").decode())]).fetchone()
    fits = _fits(str(password)[:MAX_PASSWORD_CHARS], row[6] if row else _DUMMY_HASH)
    return to_active_person(row) if row and fits else None


def find_by_token(store: Store, token: str) -> Person | None:
    """The active person this API token belongs to, or None."""
    digest = digest_of(token)

    def look_up() -> tuple[str, Person] | None:
        with store.read() as cursor:
            sql = f"SELECT {COLUMNS}, token_sha256 FROM people WHERE token_sha256 = ?"
            row = cursor.execute(sql, [digest]).fetchone()
        person = to_active_person(row) if row and hmac.compare_digest(row[6], digest) else None
        return (person.person_id, person) if person else None

    return store.roster.tokens.find(digest, look_up)


def find_known_token(store: Store, token: str) -> Person | None:
    """`find_by_token` when the answer is kept in memory; None: look it up."""
    return store.roster.tokens.known(digest_of(token))


def hash_password(password: str) -> str:
    """The password as `scrypt$n$r$p$salt$hash`, with a fresh salt."""
    salt = secrets.token_bytes(16)
    key = _scrypt(password, salt, _SCRYPT_N, _SCRYPT_R, _SCRYPT_P)
    return f"scrypt${_SCRYPT_N}${_SCRYPT_R}${_SCRYPT_P}${salt.hex()}${key.hex()}"


def _check_password_text(password: str) -> str:
    check_text("password", password)
    if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
        raise BadValue(
            f"a password has {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters, not {len(password)}"
        )
    return password


def _fits(password: str, password_hash: str) -> bool:
    _, n, r, p, salt, key = password_hash.split("$")
    found = _scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, bytes.fromhex(key))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(errors="replace"), salt=salt, n=n, r=r, p=p, dklen=32)


def digest_of(token: str) -> str:
    """What is kept of a token of 256 random bits."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _name_key(name: str) -> str:
    return unicodedata.normalize("NFKC", name.strip()).casefold()


def to_active_person(row: tuple[Any, ...]) -> Person | None:
    """The person of a row that begins with `COLUMNS`; None when they are switched off."""
    person = _to_person(row[:6])
    return person if person.active else None


def _to_person(row: tuple[Any, ...]) -> Person:
    person_id, name, role, active, created_at, trained_on = row
    return Person(person_id, name, role, active, from_column(created_at), trained_on)
