"""Which of the old labels a round sees again beside the new ones.

Labels are old once the live version's own round had them in its snapshot: those of a round that was rejected
are still new to the adapter that the next one continues. What is drawn among the old ones follows from the
rows' ids and the snapshot's place in the journal alone, so it can be drawn again.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from store.errors import BadValue
from store.records import PairRow, RatingRow
from store.training_rows import EDITED_VERSION

Row = TypeVar("Row", PairRow, RatingRow)


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """Old labels beside new ones.

    `mode` all trains on every label so far, equal on the new ones and `share` old ones for each, none on the
    new ones alone; auto is all for a round that starts fresh and equal for one that continues the live
    adapter.
    """

    mode: Literal["auto", "all", "equal", "none"] = "auto"
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "all", "equal", "none"):
            raise BadValue(f"replay mode {self.mode!r} is none of auto, all, equal, none")
        if not 0.0 < self.share <= 100.0:
            raise BadValue(f"replay share {self.share} is outside 0..100 old labels for a new one")

    def resolve(self, start: str) -> ReplaySettings:
        """The same with a mode that is not auto, for a round that starts `fresh` or from the `previous`."""
        if self.mode != "auto":
            return self
        return replace(self, mode="equal" if start == "previous" else "all")


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many rows are new and how many old ones came along or stayed away, by policy version."""

    num_new: int
    old_by_version: dict[str, int]
    left_by_version: dict[str, int]


def version_of(row: PairRow | RatingRow) -> str:
    """The policy version a row is about: of the answer a policy wrote, where a person wrote the other."""
    if isinstance(row, RatingRow):
        return row.version
    return row.rejected_version if row.chosen_version == EDITED_VERSION else row.chosen_version


def choose_replayed(
    rows: Sequence[Row], new_labels: Collection[str] | None, settings: ReplaySettings, salt: str
) -> tuple[list[Row], list[Row], Replayed]:
    """Rows to train on and rows left for another round, both in their order.

    `new_labels` None calls every row new. A row is new when any label behind it is.
    """
    assert settings.mode != "auto"
    is_new = [new_labels is None or not new_labels.isdisjoint(row.label_ids) for row in rows]  # type: ignore[attr-defined]
    new = {row.row_id for row, fresh in zip(rows, is_new, strict=True) if fresh}
    old = [row for row, fresh in zip(rows, is_new, strict=True) if not fresh]
    wanted = {"all": len(old), "equal": round(settings.share * len(new)), "none": 0}[settings.mode]
    drawn = {row.row_id for row in draw_evenly(old, wanted, salt)}
    kept = [row for row in rows if row.row_id in new or row.row_id in drawn]
    left = [row for row in old if row.row_id not in drawn]
    came = Counter(version_of(row) for row in old if row.row_id in drawn)
    stayed = Counter(version_of(row) for row in left)
    return kept, left, Replayed(len(new), dict(sorted(came.items())), dict(sorted(stayed.items())))


def draw_evenly(rows: Sequence[Row], wanted: int, salt: str) -> list[Row]:
    """At most `wanted` rows, as many of each policy version as of any other while it has some left."""
    by_version: defaultdict[str, deque[Row]] = defaultdict(deque)
    for row in sorted(rows, key=lambda row: hashlib.sha256(f"{salt} {row.row_id}".encode()).digest()):
        by_version[version_of(row)].append(row)
    drawn: list[Row] = []
    while by_version and len(drawn) < wanted:
        for version in sorted(by_version, reverse=True):  # the odd ones go to the later versions
            if len(drawn) < wanted:
                drawn.append(by_version[version].popleft())
            if not by_version[version]:
                del by_version[version]
    return drawn
