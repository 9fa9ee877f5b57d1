"""One person's own pace: how much, how fast, how long without a pause. Nobody is compared with anybody."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from store.clock import from_column, to_column
from store.database import Store

PAUSE = timedelta(minutes=5)
MOST_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Pace:
    """`num_judged` counts standing acts, skips too; `median_s` and `per_hour` come from the time in use.

    `since` is when the present stretch of work began: no pause in it was longer than five minutes. The last
    three are None when nothing tells them.
    """

    num_judged: int
    median_s: float | None
    per_hour: float | None
    since: datetime | None


def read_pace(store: Store, person_id: str, since: datetime, now: datetime) -> Pace:
    """The person's standing acts from `since` to `now`."""
    sql = """
        SELECT created_at, active_ms FROM judgements
        WHERE person_id = ? AND NOT undone AND created_at >= ? ORDER BY created_at DESC LIMIT ?"""
    with store.read() as cursor:
        rows = cursor.execute(sql, [person_id, to_column(since), MOST_ROWS]).fetchall()
    timed = [active_ms / 1000.0 for _, active_ms in rows if active_ms]
    return Pace(
        num_judged=len(rows),
        median_s=median(timed) if timed else None,
        per_hour=3600.0 * len(timed) / sum(timed) if timed else None,
        since=_find_start([from_column(created_at) for created_at, _ in rows], now),
    )


def _find_start(newest_first: list[datetime], now: datetime) -> datetime | None:
    start, later = None, now
    for moment in newest_first:
        if later - moment > PAUSE:
            break
        start = later = moment
    return start
