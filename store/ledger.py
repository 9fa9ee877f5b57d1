"""What became of every label: trained on, held out, or left out for one reason that has a name.

A label is one act as the store keeps it (a judgement, a thumb, an admin's verdict, an outside label); the
correction that came with one is counted by itself, since one may teach while the other does not. Nothing may
vanish: what is in equals what was used, held out and left out together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import duckdb

from store.pair_votes import STANDING_ADJUDICATIONS, STANDING_JUDGEMENTS, STANDING_RATINGS
from store.records import PairRow, RatingRow

UNEXPLAINED = "unexplained"  # a bug of ours; a property test holds it to zero
_EDIT = ":edit"  # between a label's id and a number, in the id of a row made from its correction

Rows = Iterable[PairRow | RatingRow]


@dataclass(slots=True)
class Ledger:
    """Why a label, or the correction that came with it, made no row. The first reason given stands."""

    labels: dict[str, str] = field(default_factory=dict)
    corrections: dict[str, str] = field(default_factory=dict)

    def leave_out(self, reason: str, label_ids: Iterable[str]) -> None:
        """Note why these labels teach nothing."""
        for label_id in label_ids:
            self.labels.setdefault(label_id, reason)

    def leave_out_correction(self, reason: str, label_id: str) -> None:
        """Note why the correction of this label teaches nothing."""
        self.corrections.setdefault(label_id, reason)


@dataclass(frozen=True, slots=True)
class KeptLabel:
    """A label as the tables hold it; `fate` is set when it no longer stands."""

    label_id: str
    has_correction: bool
    fate: str | None


@dataclass(frozen=True, slots=True)
class Account:
    """`labels_in` equals `used` + `held_out` + the sum of `left_out`."""

    labels_in: int
    used: int
    held_out: int
    left_out: dict[str, int]

    def as_json(self) -> dict[str, object]:
        """The numbers as report.json holds them."""
        return {
            "in": self.labels_in,
            "used": self.used,
            "held_out": self.held_out,
            "left_out": self.left_out,
        }


def read_kept_labels(cursor: duckdb.DuckDBPyConnection) -> list[KeptLabel]:
    """Every label there is at the cursor's moment, those that were undone or replaced since among them."""
    sql = f"""
        SELECT judgement_id, correction IS NOT NULL, CASE WHEN undone THEN 'undone'
            WHEN judgement_id NOT IN (SELECT judgement_id FROM {STANDING_JUDGEMENTS}) THEN 'replaced' END
        FROM judgements
        UNION ALL
        SELECT rating_id, correction IS NOT NULL,
            if(rating_id IN (SELECT rating_id FROM {STANDING_RATINGS}), NULL, 'replaced') FROM ratings
        UNION ALL
        SELECT adjudication_id, false, CASE WHEN choice = 'skip' THEN 'taken_back'
            WHEN adjudication_id NOT IN (SELECT adjudication_id FROM {STANDING_ADJUDICATIONS})
            THEN 'replaced' END
        FROM adjudications
        UNION ALL
        SELECT label_id, false, NULL FROM outside_labels"""
    return [KeptLabel(*row) for row in cursor.execute(sql).fetchall()]


def account_for(
    kept: Iterable[KeptLabel],
    ledger: Ledger,
    trained: Rows,
    held_out: Rows,
    rows_left_out: Mapping[str, Rows],
) -> tuple[Account, Account]:
    """The accounts of labels and of corrections.

    A label counts as used when any row that is trained on names it, and as held out when only the holdout
    does; `rows_left_out` are rows that were built and then left out, by reason.
    """
    trained, held_out = list(trained), list(held_out)
    dropped = {reason: list(rows) for reason, rows in rows_left_out.items()}
    kept = list(kept)
    labels = _count(
        {label.label_id: label.fate or ledger.labels.get(label.label_id) for label in kept},
        _label_ids(trained),
        _label_ids(held_out),
        {reason: _label_ids(rows) for reason, rows in dropped.items()},
    )
    corrections = _count(
        {
            label.label_id: label.fate
            or ledger.corrections.get(label.label_id)
            or ledger.labels.get(label.label_id)
            for label in kept
            if label.has_correction
        },
        _corrected(trained),
        _corrected(held_out),
        {reason: _corrected(rows) for reason, rows in dropped.items()},
    )
    return labels, corrections


def _count(
    reason_of: Mapping[str, str | None],
    trained: set[str],
    held_out: set[str],
    dropped: Mapping[str, set[str]],
) -> Account:
    left_out: Counter[str] = Counter()
    for label_id in reason_of.keys() - trained - held_out:
        built = next((reason for reason, ids in dropped.items() if label_id in ids), None)
        left_out[built or reason_of[label_id] or UNEXPLAINED] += 1
    used = len(reason_of.keys() & trained)
    held = len((reason_of.keys() & held_out) - trained)
    return Account(len(reason_of), used, held, dict(sorted(left_out.items())))


def _label_ids(rows: Rows) -> set[str]:
    return {label_id for row in rows for label_id in row.label_ids}


def _corrected(rows: Rows) -> set[str]:
    return {row.row_id.partition(_EDIT)[0] for row in rows if _EDIT in row.row_id}
