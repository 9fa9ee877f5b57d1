"""How good the labels are: agreement, and for each person what an admin wants to know before trusting them.

Flags suggest a look and never change anything. Everything is computed from the tables as they are; what was
computed last is kept until another event is written.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field

import duckdb
import numpy as np
import numpy.typing as npt

from store.agreement import Floats, Ints, Measure, measure_alpha, measure_share
from store.completions import COLUMNS as COMPLETION_COLUMNS
from store.completions import to_completion
from store.database import Store
from store.effective import FIRST, SECOND, QualitySettings, Reliability, fit_reliability
from store.flags import (
    flag_consistency,
    flag_gold,
    flag_reliability,
    flag_run,
    flag_sides,
    flag_speed,
)
from store.judged import read_gold_verdicts
from store.outside import read_outside_labels
from store.outside_rows import measure_judges, read_pairs
from store.pair_votes import NOTHING, VerdictTable, read_verdicts, select_votes


@dataclass(frozen=True, slots=True)
class PersonQuality:
    """One annotator. A measure without a value says why; `flags` are sentences for an admin.

    `reliability` is P(right) when they name a winner, by Dawid-Skene, pulled to the prior; None while nothing
    they did could be checked. Speeds are medians.
    """

    person_id: str
    name: str
    trained_on: bool
    num_judgements: int
    num_skips: int
    agreement: Measure
    consistency: Measure
    gold: Measure
    reliability: float | None
    num_checked: int
    left: Measure
    median_ms: float | None
    ms_per_word: float | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """Everything the quality page shows; people in the order of their first judgement."""

    alpha: Measure
    num_judged: int
    num_shared: int
    left: Measure
    people: tuple[PersonQuality, ...]
    judges: dict[str, Measure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Words:
    """Words by task (its event's number, ascending). Tasks never change, so only new ones are counted."""

    seqs: Ints
    counts: Floats

    def of(self, seqs: Ints) -> Floats:
        """The words of those tasks; NaN for one that is not known."""
        if not len(self.seqs):
            return np.full(len(seqs), np.nan)
        places = np.minimum(np.searchsorted(self.seqs, seqs), len(self.seqs) - 1)
        return np.where(self.seqs[places] == seqs, self.counts[places], np.nan)


@dataclass(slots=True)
class _Known:
    """What was computed last for a store, and when."""

    words: _Words = field(default_factory=lambda: _Words(np.zeros(0, np.int64), np.zeros(0)))
    seq: int = -1
    settings: QualitySettings | None = None
    quality: Quality | None = None


_known: weakref.WeakKeyDictionary[Store, _Known] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def read_quality(store: Store, settings: QualitySettings | None = None) -> Quality:
    """The quality of all labels given so far; the same as before while no event has been written since."""
    settings = settings or QualitySettings()
    with _lock, store.read() as cursor:
        cursor.begin()
        known = _known.setdefault(store, _Known())
        seq = int(cursor.execute("SELECT applied_seq FROM journal_position").fetchall()[0][0])
        if known.quality is None or (known.seq, known.settings) != (seq, settings):
            known.words = _read_words(cursor, known.words)
            known.quality = _compute(cursor, settings, known.words)
            known.seq, known.settings = seq, settings
        cursor.rollback()
        return known.quality


def _compute(cursor: duckdb.DuckDBPyConnection, settings: QualitySettings, words: _Words) -> Quality:
    table = read_verdicts(cursor)
    votes = select_votes(table)
    counts = votes.count()
    per_task = counts.sum(axis=1)
    reliability = fit_reliability(votes, settings)
    sided = (table.verdict == FIRST) | (table.verdict == SECOND)
    left = sided & (table.verdict == table.left)
    acts = _Acts(table, sided, left, words.of(table.task_seqs[table.task]), counts)
    return Quality(
        alpha=measure_alpha(counts),
        num_judged=int((per_task > 0).sum()),
        num_shared=int((per_task > 1).sum()),
        left=measure_share(int(left.sum()), int(sided.sum()), "undefined: nobody has chosen a side yet"),
        people=tuple(_describe_people(cursor, acts, reliability, settings)),
        judges=_measure_judges(cursor, table),
    )


@dataclass(frozen=True, slots=True)
class _Acts:
    """The verdicts with what every person's numbers are made of; columns as in the table."""

    table: VerdictTable
    sided: npt.NDArray[np.bool_]
    left: npt.NDArray[np.bool_]
    words: Floats
    counts: Ints


def _describe_people(
    cursor: duckdb.DuckDBPyConnection, acts: _Acts, reliability: Reliability, settings: QualitySettings
) -> list[PersonQuality]:
    table = acts.table
    sql = """
        SELECT j.person_id, coalesce(any_value(p.name), '(erased)'), coalesce(any_value(p.trained_on), true),
            count(*) FILTER (choice <> 'skip'), count(*) FILTER (choice = 'skip')
        FROM judgements AS j LEFT JOIN people AS p USING (person_id)
        WHERE NOT undone GROUP BY j.person_id ORDER BY min(j.seq)"""
    rows = cursor.execute(sql).fetchall()
    places = {person_id: n for n, person_id in enumerate(table.people)}
    order = np.argsort(table.person, kind="stable")
    starts = np.searchsorted(table.person[order], np.arange(len(places) + 1))
    agreeing = _agreement(acts)
    same, asked = _consistency(table)
    described = []
    for person_id, name, trained_on, num_judgements, num_skips in rows:
        n = places[person_id]
        mine = order[starts[n] : starts[n + 1]]
        described.append(
            _describe(
                (person_id, name, trained_on, num_judgements, num_skips),
                acts,
                mine,
                measure_share(float(same[n]), float(asked[n]), "no repeat has been answered yet"),
                agreeing,
                reliability,
                settings,
            )
        )
    return described


def _describe(
    who: tuple[str, str, bool, int, int],
    acts: _Acts,
    mine: Ints,
    consistency: Measure,
    agreeing: Floats,
    reliability: Reliability,
    settings: QualitySettings,
) -> PersonQuality:
    table, person_id = acts.table, who[0]
    shared = agreeing[mine]
    shared = shared[~np.isnan(shared)]
    golden = mine[(table.gold[mine] != NOTHING) & ~table.is_repeat[mine]]
    right = int((table.gold[golden] == table.verdict[golden]).sum())
    sided = mine[acts.sided[mine]]
    left = measure_share(int(acts.left[sided].sum()), len(sided), "has not chosen a side yet")
    timed = mine[~np.isnan(table.active_ms[mine])]
    speeds = table.active_ms[timed] / np.maximum(acts.words[timed], 1)
    gold = measure_share(right, len(golden), "has met no gold task yet")
    shown = np.where(acts.sided[mine], acts.left[mine].astype(np.int64), table.verdict[mine])
    return PersonQuality(
        *who,
        agreement=measure_share(float(shared.sum()), len(shared), "shares no task with anyone yet"),
        consistency=consistency,
        gold=gold,
        reliability=reliability.accuracy(person_id),
        num_checked=reliability.num_checked.get(person_id, 0),
        left=left,
        median_ms=float(np.median(table.active_ms[timed])) if len(timed) else None,
        ms_per_word=float(np.median(speeds)) if len(timed) else None,
        flags=tuple(
            flag
            for flag in (
                flag_speed(speeds, settings),
                flag_sides(left),
                flag_run(shown),
                flag_reliability(person_id, reliability, settings),
                flag_gold(gold, settings),
                flag_consistency(consistency),
            )
            if flag
        ),
    )


def _agreement(acts: _Acts) -> Floats:
    """For each act, the share of the others' verdicts on its task that are the same; NaN without others."""
    table, counts = acts.table, acts.counts
    others = counts.sum(axis=1)[table.task] - 1
    same = counts[table.task, table.verdict] - 1
    shares = np.divide(same, others, out=np.full(len(table.task), np.nan), where=others > 0)
    return np.where(table.is_repeat, np.nan, shares)


def _consistency(table: VerdictTable) -> tuple[Floats, Floats]:
    """By person: how often they repeated themselves, of how many repeats."""
    same, asked = np.zeros(len(table.people)), np.zeros(len(table.people))
    for person, before, again in select_votes(table).repeats:
        same[person] += before == again
        asked[person] += 1
    return same, asked


def _measure_judges(cursor: duckdb.DuckDBPyConnection, table: VerdictTable) -> dict[str, Measure]:
    """Each AI judge's kappa with people: the admin's verdict, else gold, else what most said."""
    labels = [label for label in read_outside_labels(cursor) if label.source.startswith("judge:")]
    if not labels:
        return {}
    asked = sorted({label.task_id for label in labels if label.task_id})
    sql = f"""
        SELECT {COMPLETION_COLUMNS} FROM completions WHERE completion_id IN (
            SELECT unnest([first_id, second_id]) FROM tasks WHERE list_contains(?, task_id))"""
    completions = {row[0]: to_completion(row) for row in cursor.execute(sql, [asked]).fetchall()}
    known = "SELECT seq, task_id FROM tasks WHERE list_contains(?, task_id)"
    ids = dict(cursor.execute(known, [asked]).fetchall())
    verdicts = {**_majorities(table, ids), **read_gold_verdicts(cursor)}
    return measure_judges(labels, verdicts, read_pairs(cursor, completions))


def _majorities(table: VerdictTable, ids: Mapping[int, str]) -> dict[str, int]:
    """What most people, or else an admin, said of the tasks in `ids` (by number of their event)."""
    votes = select_votes(table)
    counts, found = votes.count(), {}
    for n, seq in enumerate(table.task_seqs.tolist()):
        task_id = ids.get(seq)
        if task_id is None or not counts[n].any():
            continue
        first, second = np.sort(counts[n])[::-1][:2]
        if first > second:
            found[task_id] = int(counts[n].argmax())
    known = table.adjudicated != NOTHING
    decided = zip(table.task[known].tolist(), table.adjudicated[known].tolist(), strict=True)
    named = {ids.get(int(table.task_seqs[n])): verdict for n, verdict in decided}
    return found | {task_id: verdict for task_id, verdict in named.items() if task_id}


def _read_words(cursor: duckdb.DuckDBPyConnection, known: _Words) -> _Words:
    """Words of the two answers of each pair, those of tasks made since added to what is known."""
    words = "length(c.text) - length(replace(c.text, ' ', '')) + 1"
    sql = f"""
        SELECT t.seq, sum({words})::DOUBLE AS words FROM completions AS c JOIN (
            SELECT seq, unnest([first_id, second_id]) AS completion_id FROM tasks
            WHERE kind = 'pair' AND seq > ?) AS t USING (completion_id)
        GROUP BY t.seq ORDER BY t.seq"""
    newest = int(known.seqs[-1]) if len(known.seqs) else 0
    found = cursor.execute(sql, [newest]).fetchnumpy()
    seqs, counts = np.asarray(found["seq"]).astype(np.int64), np.asarray(found["words"], dtype=np.float64)
    return _Words(np.concatenate([known.seqs, seqs]), np.concatenate([known.counts, counts]))
