"""Export: every usable label as rows other trainers read, people named by pseudonyms only."""

from __future__ import annotations

from collections.abc import Iterator

from store.database import Store
from store.labels import build_rows
from store.records import Message, PairRow, RatingRow
from store.shares import pseudonym


def export_labels(store: Store) -> Iterator[dict[str, object]]:
    """Rows in TRL's conversational formats: preference pairs, then single answers, each with its origin."""
    with store.read() as cursor:
        cursor.begin()
        rows = build_rows(cursor)
        cursor.rollback()
    yield from (_to_preference(pair) for pair in rows.pairs)
    yield from (_to_unpaired(rating) for rating in rows.ratings)


def _to_preference(row: PairRow) -> dict[str, object]:
    return {
        "format": "preference",
        "row_id": row.row_id,
        "prompt_id": row.prompt_id,
        "prompt": list(row.messages),
        "chosen": [_answer(row.chosen)],
        "rejected": [_answer(row.rejected)],
        "chosen_version": row.chosen_version,
        "rejected_version": row.rejected_version,
        "strength": row.strength,
        "probability": row.probability,
        **_origin(row),
    }


def _to_unpaired(row: RatingRow) -> dict[str, object]:
    return {
        "format": "unpaired",
        "row_id": row.row_id,
        "prompt_id": row.prompt_id,
        "prompt": list(row.messages),
        "completion": [_answer(row.completion)],
        "label": row.desirable,
        "version": row.version,
        **_origin(row),
    }


def _origin(row: PairRow | RatingRow) -> dict[str, object]:
    """Who gave the label, as pseudonyms; nobody did where it came from outside."""
    annotators = [pseudonym(person_id) for person_id in row.person_ids]
    return {
        "annotator": annotators[0] if annotators else "",
        "annotators": annotators,
        "source": row.source,
        "weight": row.weight,
        "created_at": row.created_at.isoformat(),
    }


def _answer(text: str) -> Message:
    return Message(role="assistant", content=text)
