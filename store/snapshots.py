"""Snapshots: the frozen rows one round trains on, split into training and holdout by prompt and never by row.

The same events give the same bytes: rows lie in the order of their ids and no file depends on the clock.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from store.database import Store
from store.effective import QualitySettings
from store.errors import BadValue, NotFound, StateConflict
from store.events import to_json
from store.journal import sync_folder
from store.labels import build_rows
from store.outside_rows import NOT_FOR_HOLDOUT
from store.pair_votes import STANDING_ADJUDICATIONS, STANDING_RATINGS
from store.records import Message, PairRow, RatingRow
from store.shares import CapReport, cap_shares, pseudonym
from store.training_rows import TrainingRows, prompt_digest

_TIME = pa.timestamp("us", tz="UTC")
_IDS = pa.list_(pa.int32())
_NAMES = pa.list_(pa.string())
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
        "person_ids": _NAMES,
        "label_ids": _NAMES,
        "source": pa.string(),
        "probability": pa.float64(),
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
        "person_ids": _NAMES,
        "label_ids": _NAMES,
        "source": pa.string(),
        "created_at": _TIME,
    }
)
_COUNTED_OUTSIDE = """seq > $seq AND weight > 0 AND NOT starts_with(source, 'judge:')
    AND split IS DISTINCT FROM 'holdout'"""
HOLDOUT_SCHEMA = PAIR_SCHEMA.append(pa.field("kind", pa.string()))


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Labels a round could train on: `pairs` are tasks with a winner, edits and outside pairs.

    `ratings` are thumbs, both bad and outside ratings.
    """

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
    """Every label usable now, by what the acts say alone: neither gold nor repeats, nor those of people left
    out.

    Labels of AI judges are not counted: whether they may be used has to be measured first, and they alone
    shall not start a round. What else only shows when rows are built (equal texts, votes that cancel) counts
    here.
    """
    with store.read() as cursor:
        return _count_after(cursor, 0)


def write_snapshot(
    store: Store,
    folder: Path,
    holdout_share: float = 0.1,
    quality: QualitySettings | None = None,
    without: Sequence[str] = (),
) -> SnapshotReport:
    """Write pairs, ratings, holdout, report.json and SHA256 to `folder`, which appears whole or not at all.

    A prompt is held out by what it says alone, so once held out it stays held out. The labels of the people
    in `without` are left out. StateConflict when the folder is there already.
    """
    if not 0.0 <= holdout_share < 1.0:
        raise BadValue(f"holdout_share {holdout_share} is outside [0, 1)")
    if folder.exists():
        raise StateConflict(f"{folder} is there already; a snapshot is never written twice")
    quality = quality or QualitySettings()
    with store.read() as cursor:
        cursor.begin()  # every query below sees the same moment
        seq = _applied_seq(cursor)
        rows = build_rows(cursor, quality, without)
        cursor.rollback()
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    report = _write_files(unfinished, rows, holdout_share, seq, quality, without)
    unfinished.rename(folder)
    sync_folder(folder.parent)
    return report


def is_held_out(messages: Sequence[Message], holdout_share: float) -> bool:
    """Whether a prompt belongs to the holdout; a larger share only ever adds prompts."""
    return int(prompt_digest(messages)[:8], 16) / 2**32 < holdout_share


@dataclass(frozen=True, slots=True)
class _Split:
    """Rows by what becomes of them; weights are as they go to the trainer."""

    pairs: list[PairRow]
    ratings: list[RatingRow]
    held_out: list[PairRow]
    pair_cap: CapReport
    rating_cap: CapReport


def _split(rows: TrainingRows, holdout_share: float, quality: QualitySettings) -> _Split:
    def is_out(row: PairRow | RatingRow) -> bool:
        return is_held_out(row.messages, holdout_share) or (
            bool(rows.held_out) and prompt_digest(row.messages) in rows.held_out
        )

    out = [row for row in rows.pairs if is_out(row)]
    # What a machine said is no yardstick for the policy, unless its source reserved it for that.
    held_out = [
        row for row in out if not row.source.startswith(NOT_FOR_HOLDOUT) or row.row_id in rows.reserved
    ]
    ratings = [row for row in rows.ratings if not is_out(row)]
    rows.reasons["held_out_pairs"] = len(held_out)
    rows.reasons["held_out_outside"] = len(out) - len(held_out)
    rows.reasons["held_out_ratings"] = len(rows.ratings) - len(ratings)
    # Each stage of training brings its own weights to an average of 1, so each is capped by itself.
    pairs, pair_cap = cap_shares([row for row in rows.pairs if not is_out(row)], quality.share_cap)
    ratings, rating_cap = cap_shares(ratings, quality.share_cap)
    return _Split(pairs, ratings, held_out, pair_cap, rating_cap)


def _write_files(
    folder: Path,
    rows: TrainingRows,
    holdout_share: float,
    seq: int,
    quality: QualitySettings,
    without: Sequence[str],
) -> SnapshotReport:
    split = _split(rows, holdout_share, quality)
    reasons = {name: count for name, count in sorted(rows.reasons.items()) if count}
    _write_parquet(folder / "pairs.parquet", [_pair_columns(row) for row in split.pairs], PAIR_SCHEMA)
    _write_parquet(folder / "ratings.parquet", [_rating_columns(row) for row in split.ratings], RATING_SCHEMA)
    held_rows = [{**_pair_columns(row), "kind": "pair"} for row in split.held_out]
    _write_parquet(folder / "holdout.parquet", held_rows, HOLDOUT_SCHEMA)
    counts = {
        "num_pairs": len(split.pairs),
        "num_ratings": len(split.ratings),
        "num_holdout": len(split.held_out),
    }
    report = {
        "seq": seq,
        "holdout_share": holdout_share,
        **counts,
        "counts_by_reason": reasons,
        "pairs_by_source": dict(sorted(Counter(row.source for row in split.pairs).items())),
        "ratings_by_source": dict(sorted(Counter(row.source for row in split.ratings).items())),
        "without": sorted(pseudonym(person_id) for person_id in without),
        "pair_shares": dataclasses.asdict(split.pair_cap),
        "rating_shares": dataclasses.asdict(split.rating_cap),
        "alpha": dataclasses.asdict(rows.alpha),
    }
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
    here = "WHERE person_id NOT IN (SELECT person_id FROM people WHERE trained_on = false)"
    sql = f"""
        WITH acts AS (
            -- One act of a person on a task stands at a time, so no window is needed to find the newest.
            SELECT task_id, choice, correction, seq FROM judgements {here} AND NOT undone
            AND task_id NOT IN (SELECT task_id FROM tasks WHERE purpose = 'repeat')
            AND task_id NOT IN (SELECT task_id FROM gold)
            UNION ALL
            SELECT NULL, if(value = 0, 'none', 'up'), correction, seq FROM {STANDING_RATINGS} {here}
            UNION ALL
            SELECT task_id, choice, NULL, seq FROM {STANDING_ADJUDICATIONS})
        SELECT
            count(DISTINCT task_id) FILTER (choice = 'prefer')
                + count(*) FILTER (correction IS NOT NULL AND choice <> 'skip'),
            count(*) FILTER (choice IN ('both_bad', 'up', 'down')),
            (SELECT count(*) FROM outside_labels WHERE kind = 'pair' AND {_COUNTED_OUTSIDE}),
            (SELECT count(*) FROM outside_labels WHERE kind = 'rating' AND {_COUNTED_OUTSIDE})
        FROM acts WHERE seq > $seq"""
    row = cursor.execute(sql, {"seq": seq}).fetchone()
    assert row is not None
    pairs, ratings = row[0] + row[2], row[1] + row[3]
    return LabelCounts(pairs, ratings, pairs + ratings)


def _applied_seq(cursor: duckdb.DuckDBPyConnection) -> int:
    row = cursor.execute("SELECT applied_seq FROM journal_position").fetchone()
    assert row is not None
    return int(row[0])
