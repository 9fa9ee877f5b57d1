"""A canary as the tables hold it, which conversations it gets, and what people say of both sides.

Functions here take a cursor, so that a promotion can end the canary in its own write.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import duckdb

from store.clock import from_column, utc
from store.events import Event, new_event

Outcome = Literal["withdrawn", "promoted", "stopped", "superseded"]
COLUMNS = """canary_id, version, live, share, actor, reason, created_at, ended_at, outcome, end_reason,
    ended_by, numbers_json"""


@dataclass(frozen=True, slots=True)
class Canary:
    """A share of conversations goes to `version` instead of `live`; the last five say how it ended."""

    canary_id: str
    version: str
    live: str
    share: float
    actor: str
    reason: str
    created_at: datetime
    ended_at: datetime | None = None
    outcome: Outcome | None = None
    end_reason: str = ""
    ended_by: str = ""
    numbers: dict[str, int] = field(default_factory=dict)

    def takes(self, conversation_id: str) -> bool:
        """Whether that conversation is the canary's: the same answer every time, after a restart too."""
        digest = hashlib.sha256(f"{self.canary_id}/{conversation_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2**64


@dataclass(frozen=True, slots=True)
class Side:
    """What one version has been given since the canary began: conversations, thumbs up, thumbs down."""

    conversations: int = 0
    up: int = 0
    down: int = 0

    @property
    def ratings(self) -> int:
        """How many thumbs count."""
        return self.up + self.down

    @property
    def up_rate(self) -> float | None:
        """The share of thumbs that are up; None without any."""
        return self.up / self.ratings if self.ratings else None


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of a canary."""

    candidate: Side
    live: Side

    @property
    def share(self) -> float | None:
        """The measured share of conversations; None before the first."""
        total = self.candidate.conversations + self.live.conversations
        return self.candidate.conversations / total if total else None

    def numbers(self) -> dict[str, int]:
        """As an event keeps them."""
        return {f"{name}_{what}": getattr(getattr(self, name), what) for name in _SIDES for what in _COUNTED}

    @classmethod
    def of(cls, numbers: dict[str, int]) -> Sides:
        """What `numbers` were made of; an ended canary's sides."""
        return cls(*(Side(*(numbers.get(f"{name}_{what}", 0) for what in _COUNTED)) for name in _SIDES))


_SIDES, _COUNTED = ("candidate", "live"), ("conversations", "up", "down")

# A request that belongs to no conversation is one of its own, named by its answer. The newest thumb of a
# person on an answer counts; those of people who are switched off or left out of rounds do not.
_COUNTS = """
    WITH said AS (
        SELECT completion_id, coalesce(conversation_id, completion_id) AS place, version
        FROM completions
        WHERE seq > (SELECT seq FROM canaries WHERE canary_id = $canary_id)
            AND prompt_id IS NULL AND person_id IS NOT NULL AND version IN ($version, $live)),
    thumbs AS (
        SELECT completion_id, person_id, max_by(value, seq) AS value FROM ratings
        WHERE completion_id IN (SELECT completion_id FROM said) GROUP BY ALL),
    counted AS (
        SELECT completion_id, count_if(value = 1) AS up, count_if(value = -1) AS down
        FROM thumbs JOIN people USING (person_id) WHERE active AND trained_on GROUP BY ALL)
    SELECT place, version, coalesce(sum(up), 0)::INTEGER, coalesce(sum(down), 0)::INTEGER
    FROM said LEFT JOIN counted USING (completion_id) GROUP BY ALL"""


def find_running(cursor: duckdb.DuckDBPyConnection) -> Canary | None:
    """The canary that has not ended; None when there is none."""
    row = cursor.execute(
        f"SELECT {COLUMNS} FROM canaries WHERE outcome IS NULL ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    return to_canary(row) if row else None


def count_sides(cursor: duckdb.DuckDBPyConnection, canary: Canary) -> Sides:
    """Conversations and thumbs of both versions since a running canary began.

    Only conversations in which the version that the draw gave them answered: who asks for a version by name
    has chosen it, and tells nothing about a share drawn at random.
    """
    given = {"canary_id": canary.canary_id, "version": canary.version, "live": canary.live}
    rows = cursor.execute(_COUNTS, given).fetchall()
    drawn = [row for row in rows if canary.takes(row[0]) == (row[1] == canary.version)]
    return Sides(*(_add_up(drawn, version) for version in (canary.version, canary.live)))


def ending(
    cursor: duckdb.DuckDBPyConnection, canary: Canary, outcome: Outcome, actor: str, reason: str
) -> Event:
    """The event that ends a running canary, with what it has come to."""
    return new_event(
        "canary_ended",
        utc(),
        canary_id=canary.canary_id,
        outcome=outcome,
        actor=actor,
        reason=reason,
        numbers=count_sides(cursor, canary).numbers(),
    )


def end_by_promotion(cursor: duckdb.DuckDBPyConnection, version: str, actor: str) -> list[Event]:
    """What a flip to `version` does to the canary that runs: what it was compared with is live no more."""
    canary = find_running(cursor)
    if canary is None:
        return []
    if canary.version == version:
        return [ending(cursor, canary, "promoted", actor, "it was made live")]
    return [ending(cursor, canary, "superseded", actor, f"{version} was made live")]


def to_canary(row: tuple[Any, ...]) -> Canary:
    """A row of `COLUMNS` as a record."""
    version, live, share, actor, reason, created_at, ended_at = row[1:8]
    return Canary(
        row[0],
        version,
        live,
        share,
        actor,
        reason,
        from_column(created_at),
        from_column(ended_at) if ended_at else None,
        row[8],
        row[9],
        row[10],
        json.loads(row[11]),
    )


def _add_up(rows: list[tuple[str, str, int, int]], version: str) -> Side:
    mine = [row for row in rows if row[1] == version]
    return Side(len(mine), sum(row[2] for row in mine), sum(row[3] for row in mine))
