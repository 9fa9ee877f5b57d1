"""How old the answers behind a row are: how many versions have been live since the one that wrote them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import duckdb

from store.records import BASE_VERSION, PairRow, RatingRow

NOT_SAMPLED = "not sampled here"


def read_live_order(cursor: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    """Every version that has been live, in the order in which it first was; the base model came first."""
    rows = cursor.execute("SELECT version FROM promotions ORDER BY seq").fetchall()
    return tuple(dict.fromkeys((BASE_VERSION, *(version for (version,) in rows))))


def read_live_version(cursor: duckdb.DuckDBPyConnection) -> str:
    """What is live at the cursor's moment."""
    row = cursor.execute("SELECT version FROM promotions ORDER BY seq DESC LIMIT 1").fetchone()
    return str(row[0]) if row else BASE_VERSION


def measure_lags(
    rows: Iterable[PairRow | RatingRow], order: tuple[str, ...], live: str
) -> dict[str, int | None]:
    """Each row's lag behind the live version, of the older answer of a pair; None where nobody sampled one.

    Below 0 after a rollback: the answer comes from a version that was live later than the one that is now.
    """
    place = {version: number for number, version in enumerate(order)}
    lags: dict[str, int | None] = {}
    for row in rows:
        versions = (
            (row.version,) if isinstance(row, RatingRow) else (row.chosen_version, row.rejected_version)
        )
        known = [place[version] for version in versions if version in place]
        lags[row.row_id] = place[live] - min(known) if known else None
    return lags


def count_lags(rows: Iterable[PairRow | RatingRow], lags: Mapping[str, int | None]) -> dict[str, int]:
    """How many rows have which lag, the freshest first."""
    counts = Counter(lags[row.row_id] for row in rows)
    numbers = sorted(lag for lag in counts if lag is not None)
    found = {str(lag): counts[lag] for lag in numbers}
    return found | ({NOT_SAMPLED: counts[None]} if counts[None] else {})
