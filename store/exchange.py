"""Export: every usable label as rows other trainers read, people named by pseudonyms only.

A row is TRL's (`prompt`, `chosen`, `rejected` or `prompt`, `completion`, `label`) with where it comes from
beside it. Outside labels are exported as they came in, so that none of it is lost when they are read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import duckdb

from store.clock import utc
from store.database import Store
from store.errors import BadValue
from store.events import to_json
from store.labels import build_rows, prompt_digest
from store.outside import read_outside_labels
from store.records import Message, OutsideLabel, PairRow, RatingRow
from store.shares import pseudonym
from store.splitting import find_held_out, is_held_out, opening_digest

HOLDOUT_SHARE = 0.1  # what rounds hold out unless told otherwise
# What people gave here; outside labels are exported from their own table, with all they hold.
PEOPLES = ("human", "edit", "adjudicated")

Kind = Literal["preference", "unpaired"]
KINDS: tuple[Kind, ...] = ("preference", "unpaired")


@dataclass(frozen=True, slots=True)
class ExportFilter:
    """Which labels to export; None lets all through.

    `source` is `human`, `edit`, `adjudicated` or the beginning of an outside source (`import:`), `version` a
    policy version that wrote one of the answers, `annotator` a pseudonym. `since` is included, `until` not.
    """

    kind: Kind | None = None
    source: str | None = None
    version: str | None = None
    annotator: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise BadValue(f"kind {self.kind!r} is neither preference nor unpaired")
        if self.since is not None:
            utc(self.since)
        if self.until is not None:
            utc(self.until)


EVERYTHING = ExportFilter()


def export_labels(
    store: Store, wanted: ExportFilter = EVERYTHING, holdout_share: float = HOLDOUT_SHARE
) -> Iterator[dict[str, Any]]:
    """Rows in TRL's conversational formats, of one moment: pairs, single answers, then the outside labels."""
    with store.read() as cursor:
        cursor.begin()
        rows = build_rows(cursor)
        times = _read_active_ms(cursor)
        outside = read_outside_labels(cursor)
        cursor.rollback()
    held_out = find_held_out((*rows.pairs, *rows.ratings), holdout_share, rows.held_out)
    # Outside labels are exported as they came, whether or not a round would train on them.
    exported = (
        *(_to_preference(pair, times) for pair in rows.pairs if pair.source in PEOPLES),
        *(_to_unpaired(rating, times) for rating in rows.ratings if rating.source in PEOPLES),
        *(_to_outside(label) for label in outside),
    )
    for row in exported:
        if _is_wanted(row, wanted):
            is_out = opening_digest(row["prompt"]) in held_out or is_held_out(row["prompt"], holdout_share)
            yield row | {"split": row["given_split"] or ("holdout" if is_out else "train")}


def read_guidelines_version(store: Store) -> int | None:
    """The version of the guidelines that hold; None when there are none."""
    with store.read() as cursor:
        row = cursor.execute("SELECT max(version) FROM guidelines").fetchone()
    return int(row[0]) if row and row[0] is not None else None


def _to_preference(row: PairRow, times: dict[str, int]) -> dict[str, Any]:
    return {
        "format": "preference",
        "row_id": row.row_id,
        "prompt_id": row.prompt_id,
        "prompt": list(row.messages),
        "chosen": [_answer(row.chosen)],
        "rejected": [_answer(row.rejected)],
        "chosen_version": row.chosen_version,
        "rejected_version": row.rejected_version,
        "strength": row.strength,
        **_origin(row, times),
    }


def _to_unpaired(row: RatingRow, times: dict[str, int]) -> dict[str, Any]:
    return {
        "format": "unpaired",
        "row_id": row.row_id,
        "prompt_id": row.prompt_id,
        "prompt": list(row.messages),
        "completion": [_answer(row.completion)],
        "label": row.desirable,
        "version": row.version,
        "strength": 1,
        **_origin(row, times),
    }


def _origin(row: PairRow | RatingRow, times: dict[str, int]) -> dict[str, Any]:
    """Who judged, how much it weighs and when: the one place that knows how a row names its people."""
    spent = [times[label_id] for label_id in row.label_ids if label_id in times]
    return {
        "weight": row.weight,
        "probability": row.probability if isinstance(row, PairRow) else None,
        "annotators": [pseudonym(person_id) for person_id in row.person_ids],
        "created_at": row.created_at.isoformat(),
        "source": row.source,
        "active_ms": sum(spent) if spent else None,
        "given_split": None,
        "task_id": None,
        "extra_json": "{}",
    }


def _to_outside(label: OutsideLabel) -> dict[str, Any]:
    is_pair = label.rejected is not None
    answers = (
        {"chosen": [_answer(label.chosen)], "rejected": [_answer(label.rejected or "")]}
        if is_pair
        else {"completion": [_answer(label.chosen)], "label": label.desirable}
    )
    versions = {"chosen_version": None, "rejected_version": None} if is_pair else {"version": None}
    return {
        "format": "preference" if is_pair else "unpaired",
        "row_id": label.label_id,
        "prompt_id": f"outside_{prompt_digest(label.messages)[:20]}",
        "prompt": list(label.messages),
        **answers,
        **versions,
        "strength": label.strength,
        "weight": label.weight,
        "probability": None,
        "annotators": [label.annotator] if label.annotator else [],
        "created_at": label.created_at.isoformat(),
        "source": label.source,
        "active_ms": None,
        "given_split": label.split,
        "task_id": label.task_id,
        "extra_json": to_json(label.extra),
    }


def _is_wanted(row: dict[str, Any], wanted: ExportFilter) -> bool:
    versions = {row.get("chosen_version"), row.get("rejected_version"), row.get("version")}
    at = datetime.fromisoformat(row["created_at"])
    return (
        (wanted.kind is None or row["format"] == wanted.kind)
        and (wanted.source is None or row["source"].startswith(wanted.source))
        and (wanted.version is None or wanted.version in versions)
        and (wanted.annotator is None or wanted.annotator in row["annotators"])
        and (wanted.since is None or at >= wanted.since)
        and (wanted.until is None or at < wanted.until)
    )


def _read_active_ms(cursor: duckdb.DuckDBPyConnection) -> dict[str, int]:
    sql = "SELECT judgement_id, active_ms FROM judgements WHERE active_ms IS NOT NULL"
    return dict(cursor.execute(sql).fetchall())


def count_by(rows: Sequence[dict[str, Any]], name: str) -> dict[str, int]:
    """How many rows have each value of a column, in the order the values first come."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row[name])] = counts.get(str(row[name]), 0) + 1
    return counts


def _answer(text: str) -> Message:
    return Message(role="assistant", content=text)
