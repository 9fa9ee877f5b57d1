"""Snapshots: the frozen rows one round trains on, split into training and holdout by prompt and never by row.

The same events give the same bytes: rows lie in the order of their ids and no file depends on the clock.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from store.database import Store
from store.errors import BadValue, NotFound, StateConflict
from store.events import to_json
from store.journal import sync_folder
from store.labels import STANDING_JUDGEMENTS, STANDING_RATINGS, TrainingRows, build_rows, prompt_digest
from store.records import Message, PairRow, RatingRow

_TIME = pa.timestamp("us", tz="UTC")
_IDS = pa.list_(pa.int32())
PAIR_SCHEMA = pa.schema(
    {
        "row_id": pa.string(),
        "prompt_id": pa.string(),
        "messages_json": pa.string(),
        "chosen": pa.string(),
        "rejected": pa.string(),
        "chosen_ids": _IDS,
        "rejected_ids": _IDS,
        "chosen_version": pa.string(),
        "rejected_version": pa.string(),
        "strength": pa.int32(),
        "weight": pa.float64(),
        "person_id": pa.string(),
        "created_at": _TIME,
    }
)
RATING_SCHEMA = pa.schema(
    {
        "row_id": pa.string(),
        "prompt_id": pa.string(),
        "messages_json": pa.string(),
        "completion": pa.string(),
        "completion_ids": _IDS,
        "version": pa.string(),
        "desirable": pa.bool_(),
        "weight": pa.float64(),
        "person_id": pa.string(),
        "created_at": _TIME,
    }
)
HOLDOUT_SCHEMA = PAIR_SCHEMA.append(pa.field("kind", pa.string()))


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Labels a round could train on: `pairs` are preferences and edits, `ratings` thumbs and both bad."""

    pairs: int
    ratings: int
    total: int


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """What a snapshot holds. `sha256` is that of its SHA256 file, `seq` the last event it covers."""

    num_pairs: int
    num_ratings: int
    num_holdout: int
    sha256: str
    counts_by_reason: dict[str, int]
    seq: int


def count_new_labels(store: Store, round_id: str | None = None) -> LabelCounts:
    """Usable labels newer than that round's snapshot; None: than the last promoted or rejected round's.

    A round that failed or was cancelled has consumed nothing. Without such a round every usable label is new.
    """
    with store.read() as cursor:
        return _count_after(cursor, _consumed_seq(cursor, round_id))


def count_labels(store: Store) -> LabelCounts:
    """Every label usable now; one whose two texts are equal counts here and is left out of a snapshot."""
    with store.read() as cursor:
        return _count_after(cursor, 0)


def write_snapshot(store: Store, folder: Path, holdout_share: float = 0.1) -> SnapshotReport:
    """Write pairs, ratings, holdout, report.json and SHA256 to `folder`, which appears whole or not at all.

    A prompt is held out by what it says alone, so once held out it stays held out. StateConflict when the
    folder is there already.
    """
    if not 0.0 <= holdout_share < 1.0:
        raise BadValue(f"holdout_share {holdout_share} is outside [0, 1)")
    if folder.exists():
        raise StateConflict(f"{folder} is there already; a snapshot is never written twice")
    with store.read() as cursor:
        cursor.begin()  # every query below sees the same moment
        seq = _applied_seq(cursor)
        rows = build_rows(cursor)
        cursor.rollback()
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    report = _write_files(unfinished, rows, holdout_share, seq)
    unfinished.rename(folder)
    sync_folder(folder.parent)
    return report


def is_held_out(messages: Sequence[Message], holdout_share: float) -> bool:
    """Whether a prompt belongs to the holdout; a larger share only ever adds prompts."""
    return int(prompt_digest(messages)[:8], 16) / 2**32 < holdout_share


def _write_files(folder: Path, rows: TrainingRows, holdout_share: float, seq: int) -> SnapshotReport:
    held_out = [row for row in rows.pairs if is_held_out(row.messages, holdout_share)]
    pairs = [row for row in rows.pairs if not is_held_out(row.messages, holdout_share)]
    ratings = [row for row in rows.ratings if not is_held_out(row.messages, holdout_share)]
    rows.reasons["held_out_pairs"] = len(held_out)
    rows.reasons["held_out_ratings"] = len(rows.ratings) - len(ratings)
    reasons = {name: count for name, count in sorted(rows.reasons.items()) if count}
    _write_parquet(folder / "pairs.parquet", [_pair_columns(row) for row in pairs], PAIR_SCHEMA)
    _write_parquet(folder / "ratings.parquet", [_rating_columns(row) for row in ratings], RATING_SCHEMA)
    held_rows = [{**_pair_columns(row), "kind": "pair"} for row in held_out]
    _write_parquet(folder / "holdout.parquet", held_rows, HOLDOUT_SCHEMA)
    counts = {"num_pairs": len(pairs), "num_ratings": len(ratings), "num_holdout": len(held_out)}
    report = {"seq": seq, "holdout_share": holdout_share, **counts, "counts_by_reason": reasons}
    _write_text(folder / "report.json", to_json(report) + "\n")
    return SnapshotReport(**counts, sha256=seal(folder), counts_by_reason=reasons, seq=seq)


def seal(folder: Path) -> str:
    """List every file's SHA-256 as `sha256sum` does; returns the hash of the list."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    listing = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    _write_text(folder / "SHA256", listing)
    sync_folder(folder)
    return hashlib.sha256(listing.encode()).hexdigest()


def _pair_columns(row: PairRow) -> dict[str, object]:
    return {name: getattr(row, name, None) for name in PAIR_SCHEMA.names} | {
        "messages_json": to_json(row.messages)
    }


def _rating_columns(row: RatingRow) -> dict[str, object]:
    return {name: getattr(row, name, None) for name in RATING_SCHEMA.names} | {
        "messages_json": to_json(row.messages)
    }


def _write_parquet(path: Path, rows: list[dict[str, object]], schema: pa.Schema) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="zstd")
    _sync_file(path)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")
    _sync_file(path)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _consumed_seq(cursor: duckdb.DuckDBPyConnection, round_id: str | None) -> int:
    if round_id is None:
        ended = "state IN ('promoted', 'rejected')"
        sql = f"SELECT snapshot_seq FROM rounds WHERE {ended} ORDER BY seq DESC LIMIT 1"
        row = cursor.execute(sql).fetchone()
        return int(row[0]) if row else 0
    row = cursor.execute("SELECT snapshot_seq FROM rounds WHERE round_id = ?", [round_id]).fetchone()
    if row is None:
        raise NotFound(f"no round has the id {round_id!r}")
    return int(row[0])


def _count_after(cursor: duckdb.DuckDBPyConnection, seq: int) -> LabelCounts:
    sql = f"""
        SELECT
            count(*) FILTER (choice = 'prefer')
                + count(*) FILTER (correction IS NOT NULL AND choice <> 'skip'),
            count(*) FILTER (choice IN ('both_bad', 'up', 'down'))
        FROM (SELECT choice, correction, seq FROM {STANDING_JUDGEMENTS}
            UNION ALL SELECT if(value = 0, 'none', 'up'), correction, seq FROM {STANDING_RATINGS})
        WHERE seq > ?"""
    row = cursor.execute(sql, [seq]).fetchone()
    assert row is not None
    pairs, ratings = row
    return LabelCounts(pairs, ratings, pairs + ratings)


def _applied_seq(cursor: duckdb.DuckDBPyConnection) -> int:
    row = cursor.execute("SELECT applied_seq FROM journal_position").fetchone()
    assert row is not None
    return int(row[0])
