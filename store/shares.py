"""The cap on one person's share of what a round trains on: many labels of one person are not many opinions.

Rows in, rows out with some weights lowered, and a report of whom it met. It knows no store.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TypeVar

from store.records import PairRow, RatingRow

Row = TypeVar("Row", PairRow, RatingRow)
# An admin's verdict is asked for task by task; nobody floods a snapshot with those. Outside labels have no
# person.
CAPPED_SOURCES = ("human", "edit")


@dataclass(frozen=True, slots=True)
class CapReport:
    """What the cap did: `level` is the most weight a person keeps (None: no cap), `says` is for people.

    `shares` are of the weight that people gave, before the cap; `capped` the factor left to each person it
    met.
    """

    level: float | None
    says: str
    shares: dict[str, float] = field(default_factory=dict)
    capped: dict[str, float] = field(default_factory=dict)


def pseudonym(person_id: str) -> str:
    """Ids are random, so their hash tells nobody who it was, and stays the same from export to export."""
    return f"a_{hashlib.sha256(person_id.encode()).hexdigest()[:12]}"


def cap_shares(rows: Sequence[Row], share_cap: float) -> tuple[list[Row], CapReport]:
    """Rows in their order, nobody with more than `share_cap` of the people's weight where that can be.

    A row's weight is shared evenly by the people behind it. The level c solves sum(min(w, c)) * share_cap =
    c; it is never below the median person's weight, so that few labels of many do not pull everybody down to
    theirs.
    """
    weights: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        if row.source in CAPPED_SOURCES:
            for person_id in row.person_ids:
                weights[person_id] += row.weight / len(row.person_ids)
    total = sum(weights.values())
    if not total:
        return list(rows), CapReport(None, "no cap: no row of a person")
    shares = {pseudonym(person_id): weight / total for person_id, weight in weights.items()}
    if len(weights) * share_cap < 1:
        needed = int(-(-1 // share_cap))
        says = f"no cap: {len(weights)} people, and {share_cap:.0%} each needs at least {needed}"
        return list(rows), CapReport(None, says, shares)
    level = find_level(sorted(weights.values()), share_cap)
    factors = {person_id: min(1.0, level / weight) for person_id, weight in weights.items()}
    capped = {pseudonym(person_id): factor for person_id, factor in factors.items() if factor < 1}
    says = f"{len(capped)} of {len(weights)} people were brought down to a weight of {level:g}"
    return [_lower(row, factors) for row in rows], CapReport(level, says, shares, capped)


def find_level(weights: Sequence[float], share_cap: float) -> float:
    """The most weight a person keeps; `weights` ascend. As few as possible of the heaviest are capped."""
    below, middle = sum(weights), median(weights)
    for m in range(len(weights)):
        if m * share_cap >= 1:
            break
        level = share_cap * below / (1 - m * share_cap)
        if weights[-1 - m] <= level * (1 + 1e-12):
            return max(level, middle)
        below -= weights[-1 - m]
    return middle


def _lower(row: Row, factors: dict[str, float]) -> Row:
    if row.source not in CAPPED_SOURCES:
        return row
    factor = sum(factors[person_id] for person_id in row.person_ids) / len(row.person_ids)
    return row if factor == 1.0 else replace(row, weight=row.weight * factor)
