"""What people said of pairs, read from the tables as arrays: for agreement, reliability and the quality page.

Whatever stands is read; who is left out, and what the verdicts mean, is for the caller.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from store.agreement import Floats, Ints
from store.effective import BOTH_BAD, FIRST, SECOND, TIE, PairVotes

# The newest act of a person on a task that still stands, and the newest thumb of a person on an answer.
STANDING_JUDGEMENTS = """(
    SELECT * FROM judgements WHERE NOT undone
    QUALIFY row_number() OVER (PARTITION BY task_id, person_id ORDER BY seq DESC) = 1)"""
STANDING_RATINGS = """(
    SELECT * FROM ratings
    QUALIFY row_number() OVER (PARTITION BY completion_id, person_id ORDER BY seq DESC) = 1)"""
# The newest adjudication of a task, unless it takes the one before back.
STANDING_ADJUDICATIONS = """(
    SELECT * FROM (
        SELECT * FROM adjudications QUALIFY row_number() OVER (PARTITION BY task_id ORDER BY seq DESC) = 1)
    WHERE choice <> 'skip')"""
NOTHING = -1  # no verdict in a column of verdicts
# A repeat is read in the order of the task it repeats, `o`.
_FIRST_ID = "coalesce(o.first_id, t.first_id)"


@dataclass(frozen=True, slots=True)
class VerdictTable:
    """Every standing act on a pair, skips left out, in the order they came; columns are one place an act.

    `task` and `person` are numbers into `task_seqs` (the tasks' events) and `people`. `origin` is the task a
    repeat repeats, else NOTHING; `left` what a verdict for the left side would be; `gold` and `adjudicated`
    the known verdict of the task or NOTHING; `active_ms` is NaN where it was not measured.
    """

    task: Ints
    person: Ints
    verdict: Ints
    origin: Ints
    left: Ints
    gold: Ints
    adjudicated: Ints
    active_ms: Floats
    task_seqs: Ints
    people: list[str]

    @property
    def is_repeat(self) -> npt.NDArray[np.bool_]:
        """Which acts are on tasks shown again to measure consistency."""
        repeats: npt.NDArray[np.bool_] = self.origin != NOTHING
        return repeats


def read_verdicts(cursor: duckdb.DuckDBPyConnection) -> VerdictTable:
    """The table as it is at this moment."""
    who = "SELECT person_id, min(seq) FROM judgements GROUP BY person_id ORDER BY 2"
    people = [person_id for person_id, _ in cursor.execute(who).fetchall()]
    sql = f"""
        WITH who AS (SELECT unnest($people::VARCHAR[]) AS person_id, generate_subscripts($people, 1) - 1 AS n)
        SELECT t.seq AS task, who.n AS person, {_verdict("j.choice", "j.chosen_id")} AS verdict,
            coalesce(o.seq, {NOTHING}) AS origin, if(j.left_id = {_FIRST_ID}, {FIRST}, {SECOND}) AS left_side,
            {_verdict("g.choice", "g.chosen_id")} AS gold,
            {_verdict("a.choice", "a.chosen_id")} AS adjudicated,
            coalesce(j.active_ms::DOUBLE, 'NaN'::DOUBLE) AS active_ms, j.seq AS seq
        FROM judgements AS j
        JOIN tasks AS t USING (task_id)
        JOIN who ON who.person_id = j.person_id
        LEFT JOIN tasks AS o ON o.task_id = t.repeat_of
        LEFT JOIN gold AS g ON g.task_id = t.task_id
        LEFT JOIN {STANDING_ADJUDICATIONS} AS a ON a.task_id = t.task_id
        WHERE t.kind = 'pair' AND NOT j.undone"""
    found = cursor.execute(sql, {"people": people}).fetchnumpy()
    columns = _standing({name: np.asarray(column) for name, column in found.items()})
    seqs, places = np.unique(np.concatenate([columns["task"], columns["origin"]]), return_inverse=True)
    task, origin = places[: len(columns["task"])], places[len(columns["task"]) :]
    return VerdictTable(
        task=task,
        person=columns["person"].astype(np.int64),
        verdict=columns["verdict"].astype(np.int64),
        origin=np.where(columns["origin"] == NOTHING, NOTHING, origin),
        left=columns["left_side"].astype(np.int64),
        gold=columns["gold"].astype(np.int64),
        adjudicated=columns["adjudicated"].astype(np.int64),
        active_ms=columns["active_ms"].astype(np.float64),
        task_seqs=seqs,
        people=people,
    )


def select_votes(table: VerdictTable, left_out: Collection[str] = ()) -> PairVotes:
    """What reliability is fitted on: the acts of those who are not left out, repeats apart from votes."""
    absent = np.array([person_id in left_out for person_id in table.people], dtype=bool)
    here = ~absent[table.person] if len(table.person) else np.zeros(0, dtype=bool)
    voted = here & ~table.is_repeat
    known = np.where(table.adjudicated != NOTHING, table.adjudicated, table.gold)
    answered = voted & (known != NOTHING)
    first_said = dict(
        zip(
            zip(table.task[voted].tolist(), table.person[voted].tolist(), strict=True),
            table.verdict[voted].tolist(),
            strict=True,
        )
        if table.is_repeat.any()
        else ()
    )
    repeats = []
    again = here & table.is_repeat
    for origin, person, verdict in zip(
        table.origin[again].tolist(), table.person[again].tolist(), table.verdict[again].tolist(), strict=True
    ):
        before = first_said.get((origin, person))
        if before is not None:
            repeats.append((person, before, verdict))
    return PairVotes(
        task=table.task[voted],
        person=table.person[voted],
        verdict=table.verdict[voted],
        num_tasks=len(table.task_seqs),
        people=table.people,
        known=dict(zip(table.task[answered].tolist(), known[answered].tolist(), strict=True)),
        repeats=repeats,
    )


def _standing(columns: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """In the order they came, the newest act of a person on a task, unless it is a skip.

    Done here and not as a window over the table, which takes three times as long.
    """
    order = np.argsort(columns["seq"], kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    keys = columns["task"].astype(np.int64) * (int(columns["person"].max(initial=0)) + 1) + columns["person"]
    _, newest = np.unique(keys[::-1], return_index=True)
    kept = np.sort(len(keys) - 1 - newest)
    kept = kept[columns["verdict"][kept] != NOTHING]
    return {name: column[kept] for name, column in columns.items()}


def _verdict(choice: str, chosen_id: str) -> str:
    """SQL that gives the verdict on task `t`, NOTHING where there is none."""
    return f"""CASE {choice} WHEN 'tie' THEN {TIE} WHEN 'both_bad' THEN {BOTH_BAD}
        WHEN 'prefer' THEN if({chosen_id} = {_FIRST_ID}, {FIRST}, {SECOND}) ELSE {NOTHING} END"""
