"""What every label teaches: the acts on each task as training rows, with a count of all that teach nothing.

One reading of the rules for counting, snapshots and export; `docs/labels.md` has them as a table, which a
test reads. What several people said of one task becomes one row (`effective.py`); labels nobody gave here
are added by `outside_rows.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import duckdb

from store.agreement import measure_alpha
from store.completions import COLUMNS as COMPLETION_COLUMNS
from store.completions import to_completion
from store.effective import (
    BOTH_BAD,
    FIRST,
    SECOND,
    TIE,
    WEIGHT_OF_STRENGTH,
    Effective,
    PairVote,
    QualitySettings,
    combine_pair,
    combine_thumbs,
    fit_reliability,
)
from store.judged import (
    JudgedTask,
    read_gold_verdicts,
    read_judged_tasks,
    read_left_out,
    read_standing_ratings,
    verdict_of,
)
from store.outside_rows import add_outside_rows
from store.pair_votes import STANDING_JUDGEMENTS, STANDING_RATINGS, read_verdicts, select_votes
from store.records import Adjudication, Completion, Judgement, Rating
from store.training_rows import (
    EDITED_VERSION,
    Origin,
    TrainingRows,
    add_corrections,
    add_preference,
    add_rating,
    prompt_digest,
    prompt_id_of,
)

# What other parts of the store ask this module for.
__all__ = [
    "EDITED_VERSION",
    "STANDING_JUDGEMENTS",
    "STANDING_RATINGS",
    "WEIGHT_OF_STRENGTH",
    "TrainingRows",
    "build_rows",
    "prompt_digest",
    "prompt_id_of",
]


def build_rows(
    cursor: duckdb.DuckDBPyConnection,
    settings: QualitySettings | None = None,
    without: Collection[str] = (),
) -> TrainingRows:
    """Every label that stands, as rows; the cursor decides which moment that is.

    People an admin leaves out of training, and those in `without`, neither vote nor count as evidence.
    """
    settings = settings or QualitySettings()
    left_out = read_left_out(cursor, without)
    rows = TrainingRows()
    votes = select_votes(read_verdicts(cursor), left_out)
    rows.reliability, rows.alpha = fit_reliability(votes, settings), measure_alpha(votes.count())
    completions = _read_completions(cursor)
    for task in read_judged_tasks(cursor, left_out, rows.reasons, rows.ledger):
        _add_task(rows, task, [completions[completion_id] for completion_id in task.completion_ids], settings)
    rated: defaultdict[str, list[Rating]] = defaultdict(list)
    for rating in read_standing_ratings(cursor, left_out, rows.reasons, rows.ledger):
        rated[rating.completion_id].append(rating)
    for completion_id, ratings in rated.items():
        _add_ratings(rows, ratings, completions[completion_id], settings)
    rows.verdicts |= read_gold_verdicts(cursor)
    add_outside_rows(cursor, rows, completions, settings)
    rows.pairs.sort(key=lambda row: row.row_id)
    rows.ratings.sort(key=lambda row: row.row_id)
    return rows


def _add_task(
    rows: TrainingRows, task: JudgedTask, completions: list[Completion], settings: QualitySettings
) -> None:
    for judgement in task.judgements:
        rows.reasons[judgement.choice] += 1
        if judgement.choice == "skip":
            rows.ledger.leave_out("skip", [judgement.judgement_id])
        if judgement.correction is not None and judgement.choice != "skip":
            _add_edits(rows, judgement, completions, settings)
    said = [judgement for judgement in task.judgements if judgement.choice != "skip"]
    unsafe = _find_unsafe(said)
    if task.adjudication is not None:
        rows.reasons["adjudicated"] += 1
        rows.reasons["superseded_by_adjudication"] += len(said)
        rows.ledger.leave_out("superseded_by_adjudication", [act.judgement_id for act in said])
    elif not said:
        return
    elif len(said) > 1:
        rows.reasons["combined"] += len(said)
    if len(completions) == 1:
        _add_single(rows, task, said, completions[0], settings, unsafe)
    else:
        _add_pair(rows, task, said, completions, settings, unsafe)


def _add_pair(
    rows: TrainingRows,
    task: JudgedTask,
    said: list[Judgement],
    completions: list[Completion],
    settings: QualitySettings,
    unsafe: set[str],
) -> None:
    origin, label = _settle(rows, task, said, settings)
    rows.verdicts[task.task_id] = TIE if label.chosen is None else label.chosen
    if label.chosen in (FIRST, SECOND):
        chosen, rejected = completions if label.chosen == FIRST else completions[::-1]
        add_preference(rows, origin, label, chosen, rejected, unsafe)
    elif label.why and (len(said) > 1 or task.adjudication is not None):
        rows.reasons[label.why] += 1
    if label.why:
        rows.ledger.leave_out(label.why, origin.label_ids)
    is_bad = label.chosen == BOTH_BAD and label.weight > 0
    if label.chosen == BOTH_BAD and not is_bad:
        rows.reasons["undecided"] += 1  # nobody who said so is any better than a guess
        rows.ledger.leave_out("undecided", origin.label_ids)
    for name, completion in zip(("first", "second"), completions, strict=True):
        if is_bad:
            row_id = f"{origin.row_id}:{name}"
            add_rating(rows, row_id, origin, completion, False, label.weight)
        elif completion.completion_id in unsafe:
            rows.reasons["unsafe"] += 1
            add_rating(rows, f"{origin.row_id}:unsafe-{name}", origin, completion, False)


def _settle(
    rows: TrainingRows, task: JudgedTask, said: list[Judgement], settings: QualitySettings
) -> tuple[Origin, Effective]:
    """The pair's label and whose it is: an admin's verdict where there is one, else what the votes give."""
    verdict, both = task.adjudication, task.completion_ids
    if verdict is None:
        votes = [
            PairVote(vote.person_id, verdict_of(vote.choice, vote.chosen_id, both), vote.strength)
            for vote in said
        ]
        return _origin_of(said), combine_pair(votes, rows.reliability, settings)
    origin, chosen = _origin_of_verdict(verdict), verdict_of(verdict.choice, verdict.chosen_id, both)
    if chosen in (FIRST, SECOND):
        weight = WEIGHT_OF_STRENGTH[verdict.strength]
        return origin, Effective(chosen, settings.adjudicated_probability, weight, verdict.strength)
    if chosen == BOTH_BAD:
        return origin, Effective(BOTH_BAD, weight=1.0)
    return origin, Effective(None, why="tied")


def _add_single(
    rows: TrainingRows,
    task: JudgedTask,
    said: list[Judgement],
    completion: Completion,
    settings: QualitySettings,
    unsafe: set[str],
) -> None:
    verdict = task.adjudication
    origin = _origin_of(said) if verdict is None else _origin_of_verdict(verdict)
    if completion.completion_id in unsafe:
        rows.reasons["unsafe"] += 1
        add_rating(rows, origin.row_id, origin, completion, False)
        return
    thumbs = [(judgement.person_id, judgement.choice == "up") for judgement in said]
    label = (
        combine_thumbs(thumbs, rows.reliability, settings)
        if verdict is None
        else (verdict.choice == "up", 1.0)
    )
    if label is None:
        rows.reasons["undecided"] += 1
        rows.ledger.leave_out("undecided", origin.label_ids)
        return
    add_rating(rows, origin.row_id, origin, completion, *label)


def _add_ratings(
    rows: TrainingRows, ratings: Sequence[Rating], completion: Completion, settings: QualitySettings
) -> None:
    """One row from what everybody who rated an answer says of it, and each one's correction."""
    for rating in ratings:
        rows.reasons[{1: "thumb_up", -1: "thumb_down", 0: "thumb_taken_back"}[rating.value]] += 1
        if not rating.value:
            rows.ledger.leave_out("thumb_taken_back", [rating.rating_id])
        if rating.correction is not None:
            add_corrections(rows, _origin_of_ratings([rating]), rating.correction, [completion], settings)
    said = [rating for rating in ratings if rating.value]
    if not said:
        return
    if len(said) > 1:
        rows.reasons["combined"] += len(said)
    origin = _origin_of_ratings(said)
    thumbs = [(rating.person_id, rating.value == 1) for rating in said]
    label = combine_thumbs(thumbs, rows.reliability, settings)
    if label is None:
        rows.reasons["undecided"] += 1
        rows.ledger.leave_out("undecided", origin.label_ids)
        return
    add_rating(rows, origin.row_id, origin, completion, *label)


def _origin_of_ratings(said: Sequence[Rating]) -> Origin:
    return Origin(
        label_ids=tuple(rating.rating_id for rating in said),
        person_ids=tuple(rating.person_id for rating in said),
        source="human",
        created_at=said[0].created_at,
    )


def _add_edits(
    rows: TrainingRows, judgement: Judgement, completions: list[Completion], settings: QualitySettings
) -> None:
    # The better answer of a pair is the one that gets edited; without a better one the edit beats both.
    edited = [
        c for c in completions if judgement.choice != "prefer" or c.completion_id == judgement.chosen_id
    ]
    origin = _origin_of([judgement])
    add_corrections(rows, origin, judgement.correction or "", edited, settings)


def _find_unsafe(said: Sequence[Judgement]) -> set[str]:
    """The answers that more than half of those who judged them flagged."""
    flags = Counter(completion_id for judgement in said for completion_id in judgement.unsafe_ids)
    return {completion_id for completion_id, count in flags.items() if 2 * count > len(said)}


def _origin_of_verdict(verdict: Adjudication) -> Origin:
    return Origin((verdict.adjudication_id,), (verdict.person_id,), "adjudicated", verdict.created_at)


def _origin_of(said: Sequence[Judgement]) -> Origin:
    return Origin(
        label_ids=tuple(judgement.judgement_id for judgement in said),
        person_ids=tuple(judgement.person_id for judgement in said),
        source="human",
        created_at=said[0].created_at,
    )


def _read_completions(cursor: duckdb.DuckDBPyConnection) -> dict[str, Completion]:
    sql = f"""
        SELECT {COMPLETION_COLUMNS} FROM completions WHERE completion_id IN (
            SELECT completion_id FROM ratings
            UNION SELECT unnest([first_id, second_id]) FROM tasks
            WHERE task_id IN (
                SELECT task_id FROM judgements UNION SELECT task_id FROM adjudications
                UNION SELECT task_id FROM outside_labels))"""
    return {row[0]: to_completion(row) for row in cursor.execute(sql).fetchall()}
