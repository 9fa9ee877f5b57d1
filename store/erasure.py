"""Erasing a person: out of the journal, the tables, the snapshots of past rounds and, if asked, the backups.

What it does to each kind of event is in `redaction.py`; how the files change in one step in `replacing.py`.
It reaches neither files somebody exported nor backups kept elsewhere, and says so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import duckdb

from store import replacing
from store.backup_folder import delete_backups, read_backups
from store.boundary import check_one_of, check_text
from store.clock import utc
from store.database import Store
from store.errors import BadValue, StateConflict
from store.events import new_event, to_json
from store.ids import new_id
from store.journal import FileJournal
from store.journal_rewrite import rewrite_journal
from store.migrations import FACT_TABLES
from store.people import find_person
from store.projection import Projection
from store.records import RUNNING_STATES, Person, PolicyState
from store.redaction import Mode, Redaction
from store.snapshot_erasure import SnapshotRows, rewrite_rounds

logger = logging.getLogger(__name__)

_FROM_EVENTS = (*FACT_TABLES, "migrations", "journal_position")


@dataclass(frozen=True, slots=True)
class AffectedVersion:
    """A version trained on labels of the person, in its own round or by starting from such a version.

    `is_certain` is False when the round's snapshot is gone, so that nobody can tell any more.
    """

    version: str
    state: PolicyState
    round_id: str | None
    is_certain: bool = True


@dataclass(frozen=True, slots=True)
class Erasure:
    """What erasing somebody came to. `person_id` is the new, random id; `advice` is for the admin to read."""

    person_id: str
    mode: Mode
    at: datetime
    num_removed: int
    num_changed: int
    removed: dict[str, int]
    snapshots: tuple[SnapshotRows, ...]
    versions: tuple[AffectedVersion, ...]
    backups_before: tuple[str, ...]
    backups_deleted: tuple[str, ...]
    num_mentions: int
    advice: tuple[str, ...]


def erase_person(
    store: Store,
    person_id: str,
    mode: Mode = "delete",
    *,
    actor: str,
    confirm: str,
    actor_id: str | None = None,
    backup_folder: Path | None = None,
    also_backups: bool = False,
) -> Erasure:
    """Erase the person for good; `confirm` must be their name, `actor_id` who asks (None: not a person).

    StateConflict for oneself, the last active admin and while a round runs; Busy when reads do not end.
    Writes wait until it is done. Backups under `backup_folder` are named, and deleted when asked.
    """
    check_one_of("mode", mode, get_args(Mode))
    check_text("actor", actor, may_be_empty=False)
    if not (store.data_dir / "journal").is_dir():
        raise BadValue("nobody can be erased from a store in memory; close it instead")
    if person_id == actor_id:
        raise StateConflict(
            "you cannot erase yourself: the record names an admin who is still there; ask another admin"
        )
    asked = _Asked(person_id, mode, actor, confirm, utc())
    with store.files_lock:
        before = read_backups(backup_folder) if backup_folder else []
        try:
            drafted = store.exchange_files(
                lambda cursor: _draft(store.data_dir, cursor, asked),
                lambda: replacing.replace(store.data_dir),
            )
        finally:
            replacing.drop_draft(store.data_dir)
        deleted = delete_backups(before) if also_backups else []
    left = [backup.name for backup in before if backup.name not in deleted]
    redaction, versions = drafted.redaction, drafted.versions
    logger.warning("a person was erased (%s) by %s: %d events", mode, actor, sum(redaction.gone.values()))
    return Erasure(
        person_id=redaction.new_id,
        mode=mode,
        at=asked.at,
        num_removed=sum(redaction.gone.values()),
        num_changed=redaction.changed,
        removed=dict(redaction.gone),
        snapshots=tuple(drafted.snapshots),
        versions=tuple(versions),
        backups_before=tuple(left),
        backups_deleted=tuple(deleted),
        num_mentions=redaction.mentions,
        advice=tuple(_advise(redaction, versions, left)),
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked for, and when."""

    person_id: str
    mode: Mode
    actor: str
    confirm: str
    at: datetime


@dataclass(frozen=True, slots=True)
class _Drafted:
    """What the drafted files leave out, and what that means for past rounds."""

    redaction: Redaction
    snapshots: list[SnapshotRows]
    versions: list[AffectedVersion]


def _draft(data_dir: Path, cursor: duckdb.DuckDBPyConnection, asked: _Asked) -> _Drafted:
    """Write journal, tables and rounds without the person beside the present ones; nothing is changed yet."""
    person = find_person(cursor, asked.person_id)
    _check(cursor, person, asked.confirm)
    draft = replacing.new_draft(data_dir)
    redaction = Redaction(person.person_id, person.name, asked.mode, new_id("u"), asked.at)
    snapshots: list[SnapshotRows] = []
    versions: list[AffectedVersion] = []

    def last_events() -> list[bytes]:
        snapshots.extend(rewrite_rounds(data_dir / "rounds", draft / "rounds", redaction, asked.at))
        versions.extend(
            _find_versions(cursor, data_dir, [rows.round_id for rows in snapshots if rows.num_trained])
        )
        return [to_json(event).encode() for event in _to_events(asked, redaction, versions)]

    files = sorted((data_dir / "journal").glob("*.jsonl"))
    rewrite_journal(files, draft / "journal", redaction, last_events)
    _build_tables(draft, cursor, person.person_id)
    return _Drafted(redaction, snapshots, versions)


def _check(cursor: duckdb.DuckDBPyConnection, person: Person, confirm: str) -> None:
    if confirm != person.name:
        raise BadValue(f"nobody was erased: type the name exactly as it is kept, {person.name!r}, to confirm")
    others = "SELECT count(*) FROM people WHERE role = 'admin' AND active AND person_id <> ?"
    (num_others,) = cursor.execute(others, [person.person_id]).fetchone() or (0,)
    if person.role == "admin" and person.active and not num_others:
        raise StateConflict(f"{person.name} is the last active admin; add or activate another one first")
    running = cursor.execute(
        "SELECT round_id FROM rounds WHERE list_contains(?, state) LIMIT 1", [list(RUNNING_STATES)]
    ).fetchone()
    if running:
        raise StateConflict(
            f"round {running[0]} is running and may be training on labels of {person.name}; "
            "cancel it or wait for its end, then erase"
        )


def _to_events(
    asked: _Asked, redaction: Redaction, versions: Sequence[AffectedVersion]
) -> list[dict[str, Any]]:
    events = []
    if not redaction.deletes:
        shut = {"person_id": redaction.new_id, "active": False, "actor": asked.actor}
        events.append(new_event("person_active_set", asked.at, **shut))
    counts = {"num_events": sum(redaction.gone.values()), "num_changed": redaction.changed}
    named = {"versions": [affected.version for affected in versions], "actor": asked.actor}
    who = {"person_id": redaction.new_id, "mode": asked.mode}
    return [*events, new_event("person_erased", asked.at, **who, **named, **counts)]


def _build_tables(draft: Path, cursor: duckdb.DuckDBPyConnection, person_id: str) -> None:
    """Tables from the new journal, with what other people's sessions were."""
    with closing(FileJournal(draft / "journal")) as journal:
        projection = Projection(draft / replacing.TABLES, journal)
        try:
            into = projection.begin()
            for table in _read_tables_beside(cursor):
                columns = [name for name, *_ in cursor.execute(f"DESCRIBE {table}").fetchall()]
                rows = cursor.execute(f"SELECT * FROM {table} WHERE person_id <> ?", [person_id]).fetchall()
                if rows:
                    into.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", rows)
            projection.commit(journal.last_seq)
        finally:
            projection.close()


def _read_tables_beside(cursor: duckdb.DuckDBPyConnection) -> list[str]:
    """The tables no event fills: they know people by id and start empty when the tables are built anew."""
    names = cursor.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall()
    return sorted(name for (name,) in names if name not in _FROM_EVENTS)


def _find_versions(
    cursor: duckdb.DuckDBPyConnection, data_dir: Path, round_ids: Sequence[str]
) -> list[AffectedVersion]:
    """The versions of those rounds and those that started from one of them, the oldest first.

    A version whose round's snapshot is gone is named too.
    """
    sql = "SELECT version, state, parent, round_id FROM policies WHERE round_id IS NOT NULL ORDER BY seq"
    found: dict[str, AffectedVersion] = {}
    for version, state, parent, round_id in cursor.execute(sql).fetchall():
        folder = data_dir / "rounds" / round_id
        if round_id in round_ids or (parent in found and _continues(folder)):
            found[version] = AffectedVersion(version, state, round_id)
        elif not (folder / "snapshot").is_dir():
            found[version] = AffectedVersion(version, state, round_id, is_certain=False)
    return list(found.values())


def _continues(folder: Path) -> bool:
    """Whether that round began from its parent's adapter; one whose papers are lost may have."""
    plan = folder / "round.json"
    return not plan.exists() or bool(json.loads(plan.read_text("utf-8"))["trainer"]["start"] != "fresh")


def _advise(redaction: Redaction, versions: Sequence[AffectedVersion], backups: Sequence[str]) -> list[str]:
    said = _advise_on_versions(versions) if redaction.deletes else []
    if backups:
        said.append(
            f"{len(backups)} backups were made before and still hold everything: "
            f"delete {', '.join(backups)}, and any copy kept elsewhere"
        )
    else:
        said.append("backups kept elsewhere and files exported before cannot be reached from here")
    if redaction.mentions:
        said.append(
            f"the name still stands in {redaction.mentions} events as a word in what others wrote or were "
            "answered; those were left as they are"
        )
    return said


def _advise_on_versions(versions: Sequence[AffectedVersion]) -> list[str]:
    said = []
    certain = [affected.version for affected in versions if affected.is_certain]
    live = [affected.version for affected in versions if affected.state == "live"]
    others = [version for version in certain if version not in live]
    unknown = [affected.version for affected in versions if not affected.is_certain]
    if live:
        was = "was" if live[0] in certain else "may have been"
        said.append(
            f"{live[0]} is live and {was} trained on their labels: start a round now (it trains without "
            "them), or roll back to a version that is not named here"
        )
    if others:
        said.append(
            f"trained on their labels, so do not roll back there: {', '.join(others)}; delete their folders "
            "under data/policies when no trace may stay"
        )
    if unknown:
        said.append(f"nobody can tell of {', '.join(unknown)}: the snapshots of their rounds are gone")
    return said
