"""What admins and rounds did, newest first: read from the tables, one line an act.

Erased people are named by what stands in their place; nothing here needs the journal.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from store.clock import from_column
from store.database import Store
from store.redaction import Mode


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act. `actor` is empty where none was kept; `subject` is a version, a round or a person's name."""

    at: datetime
    act: str
    actor: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class PastErasure:
    """Somebody was erased: their new id, how, by whom, and the versions that were trained on them."""

    at: datetime
    person_id: str
    mode: Mode
    actor: str
    num_events: int
    versions: tuple[str, ...]


_BY_HAND = "by hand: "
_CANCELLED = "cancelled by "
_ACTS = f"""
    SELECT created_at, seq, if(kind = 'rollback', 'rolled back to', 'promoted') AS act, actor,
        version AS subject, reason AS detail FROM promotions
    UNION ALL
    SELECT created_at, seq, 'canary started', actor, version, reason FROM canaries
    UNION ALL
    SELECT ended_at, seq, 'canary ' || outcome, ended_by, version, end_reason
        FROM canaries WHERE outcome IS NOT NULL
    UNION ALL
    SELECT created_at, seq, 'round started',
        if(starts_with("trigger", '{_BY_HAND}'), substr("trigger", {len(_BY_HAND) + 1}), ''),
        round_id, "trigger" FROM rounds
    UNION ALL
    SELECT finished_at, seq, 'round cancelled',
        if(starts_with(reason, '{_CANCELLED}'), substr(reason, {len(_CANCELLED) + 1}), ''),
        round_id, reason FROM rounds WHERE state = 'cancelled'
    UNION ALL
    SELECT created_at, seq, 'person added', '', name, '' FROM people
    UNION ALL
    SELECT a.created_at, a.seq, 'person ' || a.act, a.actor, coalesce(p.name, a.person_id), a.reason
        FROM person_acts AS a LEFT JOIN people AS p USING (person_id)
    UNION ALL
    SELECT created_at, seq, 'person erased', actor, person_id,
        mode || ', ' || num_events || ' events removed' FROM erasures
    UNION ALL
    SELECT created_at, seq, 'guidelines set', actor, 'version ' || version, '' FROM guidelines"""


def read_audit(store: Store, limit: int = 200) -> list[AuditEntry]:
    """Promotions, rollbacks, rounds begun and cancelled, acts on people, guidelines; the newest first."""
    sql = f"SELECT * EXCLUDE (seq) FROM ({_ACTS}) ORDER BY created_at DESC, seq DESC LIMIT ?"
    with store.read() as cursor:
        rows = cursor.execute(sql, [limit]).fetchall()
    return [AuditEntry(from_column(at), *rest) for at, *rest in rows]


def read_erasures(store: Store) -> list[PastErasure]:
    """Everybody who was erased, the newest first."""
    sql = (
        "SELECT created_at, person_id, mode, actor, num_events, versions_json FROM erasures ORDER BY seq DESC"
    )
    with store.read() as cursor:
        rows = cursor.execute(sql).fetchall()
    return [
        PastErasure(from_column(at), person_id, mode, actor, num_events, tuple(json.loads(versions)))
        for at, person_id, mode, actor, num_events, versions in rows
    ]
