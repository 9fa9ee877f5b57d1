"""Snapshots: the frozen rows one round trains on, split into training and holdout by family and never by row.

The same events and the same recipe give the same bytes: rows lie in the order of their ids and no file
depends on the clock. `rebuilding.py` writes a snapshot again from the journal alone.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from store.database import Store
from store.effective import QualitySettings
from store.errors import BadValue, StateConflict
from store.events import to_json
from store.journal import sync_folder
from store.label_counts import LabelCounts, count_labels, count_new_labels, learned_seq
from store.labels import build_rows
from store.ledger import KeptLabel, account_for, read_kept_labels
from store.outside_rows import NOT_FOR_HOLDOUT
from store.records import PairRow, RatingRow
from store.replay import Replayed, ReplaySettings, choose_replayed
from store.shares import CapReport, cap_shares, pseudonym
from store.snapshot_files import HOLDOUT_SCHEMA, PAIR_SCHEMA, RATING_SCHEMA, seal, write_rows, write_text
from store.splitting import find_held_out, is_held_out, opening_digest
from store.staleness import count_lags, measure_lags, read_live_order, read_live_version
from store.training_rows import TrainingRows

# What other parts ask this module for.
__all__ = [
    "LabelCounts",
    "Recipe",
    "SnapshotReport",
    "count_labels",
    "count_new_labels",
    "is_held_out",
    "seal",
    "write_from_tables",
    "write_snapshot",
]


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides a snapshot besides the events up to `seq`. Labels up to `since` are old ones.

    `without` are pseudonyms: report.json keeps the recipe, and names nobody.
    """

    seq: int
    since: int
    holdout_share: float
    without: tuple[str, ...]
    quality: QualitySettings
    replay: ReplaySettings


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """What a snapshot holds. `sha256` is that of its SHA256 file, `seq` the last event it covers."""

    num_pairs: int
    num_ratings: int
    num_holdout: int
    sha256: str
    counts_by_reason: dict[str, int]
    seq: int


def write_snapshot(
    store: Store,
    folder: Path,
    holdout_share: float = 0.1,
    quality: QualitySettings | None = None,
    without: Sequence[str] = (),
    replay: ReplaySettings | None = None,
) -> SnapshotReport:
    """Write pairs, ratings, holdout, report.json and SHA256 to `folder`, which appears whole or not at all.

    A prompt is held out by what it opens with, so once held out it stays held out. The labels of the people
    in `without` are left out; `replay` says which old labels come along, all of them unless told otherwise.
    StateConflict when the folder is there already.
    """
    if not 0.0 <= holdout_share < 1.0:
        raise BadValue(f"holdout_share {holdout_share} is outside [0, 1)")
    with store.read() as cursor:
        cursor.begin()  # every query below sees the same moment
        recipe = Recipe(
            seq=_applied_seq(cursor),
            since=learned_seq(cursor),
            holdout_share=holdout_share,
            without=tuple(sorted(pseudonym(person_id) for person_id in without)),
            quality=quality or QualitySettings(),
            replay=(replay or ReplaySettings()).resolve("fresh"),
        )
        found = _read_tables(cursor, recipe)
        cursor.rollback()
    return _write(folder, recipe, found)


def write_from_tables(cursor: duckdb.DuckDBPyConnection, folder: Path, recipe: Recipe) -> SnapshotReport:
    """Write the snapshot of a recipe from tables that hold the events up to its `seq` and no others."""
    applied = _applied_seq(cursor)
    if applied != recipe.seq:
        raise BadValue(f"the tables hold {applied} events and the snapshot covers {recipe.seq}")
    return _write(folder, recipe, _read_tables(cursor, recipe))


@dataclass(frozen=True, slots=True)
class _Tables:
    """What a snapshot is made of, read at one moment."""

    rows: TrainingRows
    kept: list[KeptLabel]
    new_labels: set[str] | None
    live_order: tuple[str, ...]
    live: str


def _read_tables(cursor: duckdb.DuckDBPyConnection, recipe: Recipe) -> _Tables:
    people = cursor.execute("SELECT person_id FROM people").fetchall()
    without = [person_id for (person_id,) in people if pseudonym(person_id) in recipe.without]
    return _Tables(
        rows=build_rows(cursor, recipe.quality, without),
        kept=read_kept_labels(cursor),
        new_labels=None if recipe.replay.mode == "all" else _read_new_labels(cursor, recipe.since),
        live_order=read_live_order(cursor),
        live=read_live_version(cursor),
    )


def _read_new_labels(cursor: duckdb.DuckDBPyConnection, since: int) -> set[str]:
    tables = {
        "judgements": "judgement_id",
        "ratings": "rating_id",
        "adjudications": "adjudication_id",
        "outside_labels": "label_id",
    }
    sql = " UNION ALL ".join(
        f"SELECT {name} FROM {table} WHERE seq > $since" for table, name in tables.items()
    )
    return {label_id for (label_id,) in cursor.execute(sql, {"since": since}).fetchall()}


@dataclass(frozen=True, slots=True)
class _Split:
    """Rows by what becomes of them; weights are as they go to the trainer."""

    pairs: list[PairRow]
    ratings: list[RatingRow]
    held_out: list[PairRow]
    left_out: dict[str, list[PairRow | RatingRow]]
    pair_cap: CapReport
    rating_cap: CapReport
    pair_replay: Replayed
    rating_replay: Replayed


def _split(found: _Tables, recipe: Recipe) -> _Split:
    rows = found.rows
    out = find_held_out((*rows.pairs, *rows.ratings), recipe.holdout_share, rows.held_out)
    pairs_out = [row for row in rows.pairs if opening_digest(row.messages) in out]
    # What a machine said is no yardstick for the policy, unless its source reserved it for that.
    held_out = [
        row for row in pairs_out if not row.source.startswith(NOT_FOR_HOLDOUT) or row.row_id in rows.reserved
    ]
    ratings_out = [row for row in rows.ratings if opening_digest(row.messages) in out]
    machines = [row for row in pairs_out if row not in held_out]
    salt = str(recipe.seq)
    pairs, old_pairs, pair_replay = choose_replayed(
        [row for row in rows.pairs if opening_digest(row.messages) not in out],
        found.new_labels, recipe.replay, salt,
    )  # fmt: skip
    ratings, old_ratings, rating_replay = choose_replayed(
        [row for row in rows.ratings if opening_digest(row.messages) not in out],
        found.new_labels, recipe.replay, salt,
    )  # fmt: skip
    # Each stage of training brings its own weights to an average of 1, so each is capped by itself.
    pairs, pair_cap = cap_shares(pairs, recipe.quality.share_cap)
    ratings, rating_cap = cap_shares(ratings, recipe.quality.share_cap)
    left_out: dict[str, list[PairRow | RatingRow]] = {
        "held_out_outside": [*machines],
        "held_out_ratings": [*ratings_out],
        "not_replayed": [*old_pairs, *old_ratings],
    }
    return _Split(pairs, ratings, held_out, left_out, pair_cap, rating_cap, pair_replay, rating_replay)


def _write(folder: Path, recipe: Recipe, found: _Tables) -> SnapshotReport:
    if folder.exists():
        raise StateConflict(f"{folder} is there already; a snapshot is never written twice")
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    report = _write_files(unfinished, recipe, found)
    unfinished.rename(folder)
    sync_folder(folder.parent)
    return report


def _write_files(folder: Path, recipe: Recipe, found: _Tables) -> SnapshotReport:
    split = _split(found, recipe)
    reasons = found.rows.reasons + Counter({name: len(rows) for name, rows in split.left_out.items()})
    reasons["held_out_pairs"] = len(split.held_out)
    counted = {name: count for name, count in sorted(reasons.items()) if count}
    every_row: list[PairRow | RatingRow] = [*split.pairs, *split.ratings, *split.held_out]
    lags = measure_lags(every_row, found.live_order, found.live)
    write_rows(folder / "pairs.parquet", split.pairs, PAIR_SCHEMA, lags)
    write_rows(folder / "ratings.parquet", split.ratings, RATING_SCHEMA, lags)
    write_rows(folder / "holdout.parquet", split.held_out, HOLDOUT_SCHEMA, lags, kind="pair")
    counts = {
        "num_pairs": len(split.pairs),
        "num_ratings": len(split.ratings),
        "num_holdout": len(split.held_out),
    }
    report = counts | {"counts_by_reason": counted} | _report(recipe, found, split, lags)
    write_text(folder / "report.json", to_json(report) + "\n")
    return SnapshotReport(**counts, sha256=seal(folder), counts_by_reason=counted, seq=recipe.seq)


def _report(recipe: Recipe, found: _Tables, split: _Split, lags: dict[str, int | None]) -> dict[str, object]:
    trained: list[PairRow | RatingRow] = [*split.pairs, *split.ratings]
    labels, corrections = account_for(found.kept, found.rows.ledger, trained, split.held_out, split.left_out)
    return {
        "seq": recipe.seq,
        "holdout_share": recipe.holdout_share,
        "labels": labels.as_json(),
        "corrections": corrections.as_json(),
        "pairs_by_source": _count(row.source for row in split.pairs),
        "ratings_by_source": _count(row.source for row in split.ratings),
        "without": list(recipe.without),
        "pair_shares": dataclasses.asdict(split.pair_cap),
        "rating_shares": dataclasses.asdict(split.rating_cap),
        "alpha": dataclasses.asdict(found.rows.alpha),
        "replay": {
            "pairs": dataclasses.asdict(split.pair_replay),
            "ratings": dataclasses.asdict(split.rating_replay),
        },
        "lag": {
            "live": found.live,
            "pairs": count_lags(split.pairs, lags),
            "ratings": count_lags(split.ratings, lags),
        },
        "recipe": dataclasses.asdict(recipe),
    }


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _applied_seq(cursor: duckdb.DuckDBPyConnection) -> int:
    row = cursor.execute("SELECT applied_seq FROM journal_position").fetchone()
    assert row is not None
    return int(row[0])
