"""How many labels a round could train on: what the acts say alone, before any row is built."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from store.database import Store
from store.errors import NotFound
from store.pair_votes import STANDING_ADJUDICATIONS, STANDING_RATINGS

_COUNTED_OUTSIDE = """seq > $seq AND weight > 0 AND NOT starts_with(source, 'judge:')
    AND split IS DISTINCT FROM 'holdout'"""


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Labels a round could train on: `pairs` are tasks with a winner, edits and outside pairs.

    `ratings` are thumbs, both bad and outside ratings.
    """

    pairs: int
    ratings: int
    total: int


def count_new_labels(store: Store, round_id: str | None = None) -> LabelCounts:
    """Usable labels newer than that round's snapshot; None: than the last promoted or rejected round's.

    A round that failed or was cancelled has consumed nothing. Without such a round every usable label is new.
    """
    with store.read() as cursor:
        return _count_after(cursor, consumed_seq(cursor, round_id))


def count_labels(store: Store) -> LabelCounts:
    """Every label usable now, by what the acts say alone: neither gold nor repeats, nor those of people left
    out.

    Labels of AI judges are not counted: whether they may be used has to be measured first, and they alone
    shall not start a round. What else only shows when rows are built (equal texts, votes that cancel) counts
    here.
    """
    with store.read() as cursor:
        return _count_after(cursor, 0)


def consumed_seq(cursor: duckdb.DuckDBPyConnection, round_id: str | None) -> int:
    """The last event in that round's snapshot; None: in the newest snapshot that led to a verdict, else 0."""
    if round_id is None:
        ended = "state IN ('promoted', 'canary', 'rejected')"
        sql = f"SELECT snapshot_seq FROM rounds WHERE {ended} ORDER BY seq DESC LIMIT 1"
        row = cursor.execute(sql).fetchone()
        return int(row[0]) if row else 0
    row = cursor.execute("SELECT snapshot_seq FROM rounds WHERE round_id = ?", [round_id]).fetchone()
    if row is None:
        raise NotFound(f"no round has the id {round_id!r}")
    return int(row[0])


def learned_seq(cursor: duckdb.DuckDBPyConnection) -> int:
    """The last event in the snapshot that the live version was trained on; 0 while that is no round's.

    Other than for `consumed_seq`, a rejected round counts for nothing here: what it was trained on is in an
    adapter that nobody goes on from.
    """
    sql = """
        SELECT r.snapshot_seq FROM policies AS p JOIN rounds AS r USING (round_id)
        WHERE p.version = (SELECT version FROM promotions ORDER BY seq DESC LIMIT 1)"""
    row = cursor.execute(sql).fetchone()
    return int(row[0]) if row else 0


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
