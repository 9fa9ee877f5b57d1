"""Who did how much and when: counts for those who look after a project. One query each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from store.clock import to_column
from store.database import Store


@dataclass(frozen=True, slots=True)
class Activity:
    """One person's standing acts: all, those since a moment, the skips among all; thumbs in a chat."""

    judged: int = 0
    recent: int = 0
    skipped: int = 0
    rated: int = 0


def count_by_person(store: Store, since: datetime) -> dict[str, Activity]:
    """The activity of everybody who ever judged or rated, by person id; skips count as judged."""
    sql = """
        SELECT person_id, sum(judged)::BIGINT, sum(recent)::BIGINT, sum(skipped)::BIGINT, sum(rated)::BIGINT
        FROM (
            SELECT person_id, count(*) AS judged, count(*) FILTER (WHERE created_at >= $since) AS recent,
                count(*) FILTER (WHERE choice = 'skip') AS skipped, 0 AS rated
            FROM judgements WHERE NOT undone GROUP BY person_id
            UNION ALL
            SELECT person_id, 0, 0, 0, count(DISTINCT completion_id) FROM ratings GROUP BY person_id)
        GROUP BY person_id"""
    with store.read() as cursor:
        rows = cursor.execute(sql, {"since": to_column(since)}).fetchall()
    return {person_id: Activity(*counts) for person_id, *counts in rows}


def count_by_day(store: Store, num_days: int = 60) -> list[tuple[date, str, int]]:
    """(day in UTC, sort, how many) of the last `num_days` days that had any, oldest first.

    The sorts are `judgements` (standing ones, skips left out), `thumbs` and `outside labels`.
    """
    sql = """
        SELECT day, sort, count(*) FROM (
            SELECT created_at::DATE AS day, 'judgements' AS sort FROM judgements
            WHERE NOT undone AND choice <> 'skip'
            UNION ALL SELECT created_at::DATE, 'thumbs' FROM ratings
            UNION ALL SELECT created_at::DATE, 'outside labels' FROM outside_labels)
        WHERE day >= (SELECT max(day) - ?::INTEGER FROM (
            SELECT max(created_at)::DATE AS day FROM judgements
            UNION ALL SELECT max(created_at)::DATE FROM ratings
            UNION ALL SELECT max(created_at)::DATE FROM outside_labels))
        GROUP BY day, sort ORDER BY day, sort"""
    with store.read() as cursor:
        return cursor.execute(sql, [num_days]).fetchall()
