"""The acts that rows are made of, task by task: who is left out is left out here, and counted by reason.

Gold tasks and repeats measure people and are never trained on, so they stop here too.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb

from store import judgements, ratings
from store.clock import from_column
from store.effective import BOTH_BAD, FIRST, SECOND, TIE
from store.ledger import Ledger
from store.pair_votes import STANDING_ADJUDICATIONS, STANDING_JUDGEMENTS, STANDING_RATINGS
from store.records import Adjudication, Choice, Judgement, Rating

Label = TypeVar("Label", Judgement, Rating, Adjudication)
ADJUDICATION_COLUMNS = """a.adjudication_id, a.task_id, a.person_id, a.choice, a.created_at, a.chosen_id,
    a.rejected_id, a.strength, a.comment"""


@dataclass(frozen=True, slots=True)
class JudgedTask:
    """A task that may be trained on, with the standing acts on it, oldest first, and the admin's verdict."""

    task_id: str
    completion_ids: tuple[str, ...]
    judgements: tuple[Judgement, ...]
    adjudication: Adjudication | None


def read_left_out(cursor: duckdb.DuckDBPyConnection, without: Collection[str] = ()) -> dict[str, str]:
    """The people whose labels are not trained on, each with the reason under which theirs are counted."""
    left_out = dict.fromkeys(without, "person_left_out_of_this_round")
    always = cursor.execute("SELECT person_id FROM people WHERE trained_on = false").fetchall()
    return left_out | {person_id: "person_left_out" for (person_id,) in always}


def read_judged_tasks(
    cursor: duckdb.DuckDBPyConnection, left_out: Mapping[str, str], reasons: Counter[str], ledger: Ledger
) -> Iterator[JudgedTask]:
    """Tasks in the order of their making; what is not among them is counted in `reasons` and in `ledger`."""
    verdicts = {
        verdict.task_id: verdict for verdict in _read_adjudications(cursor, left_out, reasons, ledger)
    }
    sql = f"""
        SELECT t.task_id, t.first_id, t.second_id, g.task_id IS NOT NULL, t.purpose = 'repeat',
            {judgements.COLUMNS}
        FROM tasks AS t LEFT JOIN {STANDING_JUDGEMENTS} AS j ON j.task_id = t.task_id
        LEFT JOIN gold AS g ON g.task_id = t.task_id
        WHERE j.task_id IS NOT NULL OR list_contains($adjudicated, t.task_id) ORDER BY t.seq, j.seq"""
    rows = cursor.execute(sql, {"adjudicated": list(verdicts)}).fetchall()
    reasons["undone"] += _count(cursor, "judgements WHERE undone")
    for (task_id, first_id, second_id, is_gold, is_repeat), group in itertools.groupby(rows, lambda r: r[:5]):
        acts = [judgements.to_judgement(row[5:]) for row in group if row[5] is not None]
        if is_gold or is_repeat:
            reason = "gold" if is_gold else "repeat"
            reasons[reason] += len(acts)
            verdict = verdicts.get(task_id)
            ledger.leave_out(reason, [act.judgement_id for act in acts])
            ledger.leave_out(reason, [verdict.adjudication_id] if verdict else [])
            continue
        yield JudgedTask(
            task_id=task_id,
            completion_ids=(first_id,) if second_id is None else (first_id, second_id),
            judgements=tuple(_keep(acts, left_out, reasons, ledger)),
            adjudication=verdicts.get(task_id),
        )


def read_standing_ratings(
    cursor: duckdb.DuckDBPyConnection, left_out: Mapping[str, str], reasons: Counter[str], ledger: Ledger
) -> list[Rating]:
    """The newest thumb of each person on each answer, in the order they came."""
    sql = f"SELECT {ratings.COLUMNS} FROM {STANDING_RATINGS} AS r ORDER BY r.seq"
    found = [ratings.to_rating(row) for row in cursor.execute(sql).fetchall()]
    reasons["rating_replaced"] += _count(cursor, "ratings") - len(found)
    return _keep(found, left_out, reasons, ledger)


def read_gold_verdicts(cursor: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """What is known of each gold pair."""
    sql = """
        SELECT t.task_id, g.choice, g.chosen_id, t.first_id, t.second_id
        FROM gold AS g JOIN tasks AS t USING (task_id) WHERE t.kind = 'pair'"""
    return {
        task_id: verdict_of(choice, chosen_id, (first_id, second_id))
        for task_id, choice, chosen_id, first_id, second_id in cursor.execute(sql).fetchall()
    }


def verdict_of(choice: Choice, chosen_id: str | None, completion_ids: Sequence[str]) -> int:
    """A choice on a pair as FIRST, SECOND, TIE or BOTH_BAD."""
    if choice == "prefer":
        return FIRST if chosen_id == completion_ids[0] else SECOND
    return BOTH_BAD if choice == "both_bad" else TIE


def to_adjudication(row: tuple[Any, ...]) -> Adjudication:
    """A row of `ADJUDICATION_COLUMNS` as a record."""
    adjudication_id, task_id, person_id, choice, created_at, *verdict = row
    chosen_id, rejected_id, strength, comment = verdict
    return Adjudication(
        adjudication_id,
        task_id,
        person_id,
        choice,
        from_column(created_at),
        chosen_id,
        rejected_id,
        strength,
        comment,
    )


def _read_adjudications(
    cursor: duckdb.DuckDBPyConnection, left_out: Mapping[str, str], reasons: Counter[str], ledger: Ledger
) -> list[Adjudication]:
    sql = f"SELECT {ADJUDICATION_COLUMNS} FROM {STANDING_ADJUDICATIONS} AS a ORDER BY a.seq"
    found = [to_adjudication(row) for row in cursor.execute(sql).fetchall()]
    return _keep(found, left_out, reasons, ledger)


def _keep(
    labels: list[Label], left_out: Mapping[str, str], reasons: Counter[str], ledger: Ledger
) -> list[Label]:
    kept = []
    for label in labels:
        reason = left_out.get(label.person_id)
        if reason is None:
            kept.append(label)
        else:
            reasons[reason] += 1
            ledger.leave_out(reason, [_id_of(label)])
    return kept


def _id_of(label: Judgement | Rating | Adjudication) -> str:
    if isinstance(label, Judgement):
        return label.judgement_id
    return label.rating_id if isinstance(label, Rating) else label.adjudication_id


def _count(cursor: duckdb.DuckDBPyConnection, rows: str) -> int:
    found: tuple[Any, ...] | None = cursor.execute(f"SELECT count(*) FROM {rows}").fetchone()
    return int(found[0]) if found else 0
