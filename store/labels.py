"""What every label teaches: judgements and ratings as training rows, with a count of all that teach nothing.

One reading of the rules for counting, snapshots and export. `prefer` gives a pair; both bad gives two
undesirable answers; a thumb gives one answer; an edited answer beats the one it was made from. Ties and skips
teach nothing.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from store import judgements, ratings
from store.completions import COLUMNS as COMPLETION_COLUMNS
from store.completions import to_completion
from store.records import Completion, Judgement, Message, PairRow, Rating, RatingRow

EDITED_VERSION = "edited"  # stands where a policy version would when a person wrote the answer
# The newest act of a person on a task that still stands, and the newest thumb of a person on an answer.
STANDING_JUDGEMENTS = """(
    SELECT * FROM judgements WHERE NOT undone
    QUALIFY row_number() OVER (PARTITION BY task_id, person_id ORDER BY seq DESC) = 1)"""
STANDING_RATINGS = """(
    SELECT * FROM ratings
    QUALIFY row_number() OVER (PARTITION BY completion_id, person_id ORDER BY seq DESC) = 1)"""


# "Slightly better" counts half of "much better"; the trainer brings the mean weight of a set to 1.
WEIGHT_OF_STRENGTH = {1: 0.5, 2: 1.0}


@dataclass(slots=True)
class TrainingRows:
    """Rows in the order of their ids, and how many labels there were of each sort (`reasons`)."""

    pairs: list[PairRow] = field(default_factory=list)
    ratings: list[RatingRow] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)


def build_rows(cursor: duckdb.DuckDBPyConnection) -> TrainingRows:
    """Every label that stands, as rows; the cursor decides which moment that is."""
    rows = TrainingRows()
    completions = _read_completions(cursor)
    for judgement, completion_ids in _read_judgements(cursor):
        _add_judgement(rows, judgement, [completions[completion_id] for completion_id in completion_ids])
    for rating in _read_ratings(cursor):
        _add_rating(rows, rating, completions[rating.completion_id])
    rows.reasons["undone"] = _count(cursor, "judgements WHERE undone")
    rows.reasons["rating_replaced"] = _count(cursor, "ratings") - _count(cursor, STANDING_RATINGS)
    rows.pairs.sort(key=lambda row: row.row_id)
    rows.ratings.sort(key=lambda row: row.row_id)
    return rows


def prompt_digest(messages: Sequence[Message]) -> str:
    """SHA-256 of what was asked, blind to case, spacing and composition: near copies share it."""
    texts = (f"{message['role']}: {message['content']}" for message in messages)
    plain = " ".join(unicodedata.normalize("NFC", "\n".join(texts)).casefold().split())
    return hashlib.sha256(plain.encode()).hexdigest()


def _add_judgement(rows: TrainingRows, judgement: Judgement, completions: list[Completion]) -> None:
    rows.reasons[judgement.choice] += 1
    match judgement.choice:
        case "prefer":
            _add_preference(rows, judgement, completions)
        case "both_bad":
            for name, completion in zip(("first", "second"), completions, strict=True):
                rows.ratings.append(
                    _to_rating_row(f"{judgement.judgement_id}:{name}", judgement, completion, False)
                )
        case "up" | "down":
            desirable = judgement.choice == "up"
            rows.ratings.append(_to_rating_row(judgement.judgement_id, judgement, completions[0], desirable))
        case "tie" | "skip":
            pass
    if judgement.correction is not None and judgement.choice != "skip":
        # The better answer of a pair is the one that gets edited; without a better one the edit beats both.
        edited = [
            c for c in completions if judgement.choice != "prefer" or c.completion_id == judgement.chosen_id
        ]
        _add_corrections(rows, judgement.judgement_id, judgement, judgement.correction, edited)


def _add_preference(rows: TrainingRows, judgement: Judgement, completions: list[Completion]) -> None:
    chosen, rejected = (
        completions if completions[0].completion_id == judgement.chosen_id else completions[::-1]
    )
    if chosen.text == rejected.text:
        rows.reasons["same_text"] += 1
        return
    rows.pairs.append(
        PairRow(
            row_id=judgement.judgement_id,
            prompt_id=prompt_id_of(chosen),
            messages=chosen.messages,
            chosen=chosen.text,
            rejected=rejected.text,
            chosen_ids=chosen.token_ids,
            rejected_ids=rejected.token_ids,
            chosen_version=chosen.version,
            rejected_version=rejected.version,
            strength=judgement.strength,
            weight=WEIGHT_OF_STRENGTH[judgement.strength],
            person_id=judgement.person_id,
            created_at=judgement.created_at,
        )
    )


def _add_rating(rows: TrainingRows, rating: Rating, completion: Completion) -> None:
    rows.reasons[{1: "thumb_up", -1: "thumb_down", 0: "thumb_taken_back"}[rating.value]] += 1
    if rating.value:
        rows.ratings.append(_to_rating_row(rating.rating_id, rating, completion, rating.value == 1))
    if rating.correction is not None:
        _add_corrections(rows, rating.rating_id, rating, rating.correction, [completion])


def _add_corrections(
    rows: TrainingRows, label_id: str, label: Judgement | Rating, correction: str, originals: list[Completion]
) -> None:
    rows.reasons["correction"] += 1
    for number, original in enumerate(originals):
        if correction == original.text:
            rows.reasons["same_text"] += 1
            continue
        rows.pairs.append(
            PairRow(
                row_id=f"{label_id}:edit{number}",
                prompt_id=prompt_id_of(original),
                messages=original.messages,
                chosen=correction,
                rejected=original.text,
                chosen_ids=(),  # nobody sampled the edited answer, so the trainer tokenises both sides alike
                rejected_ids=(),
                chosen_version=EDITED_VERSION,
                rejected_version=original.version,
                strength=1,
                weight=1.0,
                person_id=label.person_id,
                created_at=label.created_at,
            )
        )


def _to_rating_row(
    row_id: str, label: Judgement | Rating, completion: Completion, desirable: bool
) -> RatingRow:
    return RatingRow(
        row_id=row_id,
        prompt_id=prompt_id_of(completion),
        messages=completion.messages,
        completion=completion.text,
        completion_ids=completion.token_ids,
        version=completion.version,
        desirable=desirable,
        weight=1.0,
        person_id=label.person_id,
        created_at=label.created_at,
    )


def prompt_id_of(completion: Completion) -> str:
    """Chat has no prompt row; equal contexts still have to share an id."""
    return completion.prompt_id or f"chat_{prompt_digest(completion.messages)[:20]}"


def _read_completions(cursor: duckdb.DuckDBPyConnection) -> dict[str, Completion]:
    sql = f"""
        SELECT {COMPLETION_COLUMNS} FROM completions WHERE completion_id IN (
            SELECT completion_id FROM ratings
            UNION SELECT unnest([first_id, second_id]) FROM tasks
            WHERE task_id IN (SELECT task_id FROM judgements))"""
    return {row[0]: to_completion(row) for row in cursor.execute(sql).fetchall()}


def _read_judgements(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Judgement, list[str]]]:
    sql = f"""
        SELECT {judgements.COLUMNS}, t.first_id, t.second_id
        FROM {STANDING_JUDGEMENTS} AS j JOIN tasks AS t USING (task_id) ORDER BY j.seq"""
    for *fields, first_id, second_id in cursor.execute(sql).fetchall():
        yield (
            judgements.to_judgement(tuple(fields)),
            [first_id] if second_id is None else [first_id, second_id],
        )


def _read_ratings(cursor: duckdb.DuckDBPyConnection) -> list[Rating]:
    sql = f"SELECT {ratings.COLUMNS} FROM {STANDING_RATINGS} AS r ORDER BY r.seq"
    return [ratings.to_rating(row) for row in cursor.execute(sql).fetchall()]


def _count(cursor: duckdb.DuckDBPyConnection, rows: str) -> int:
    found: tuple[Any, ...] | None = cursor.execute(f"SELECT count(*) FROM {rows}").fetchone()
    return int(found[0]) if found else 0
