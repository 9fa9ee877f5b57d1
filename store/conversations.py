"""Conversations with everything their owner did in them: answers, thumbs, edits and comparisons.

Facts only, each with its place in the journal; what of it is shown, and in which order, is decided elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import duckdb

from store import judgements, ratings
from store.completions import COLUMNS as COMPLETION_COLUMNS
from store.completions import to_completion
from store.database import Store
from store.errors import NotFound
from store.judgements import to_judgement
from store.ratings import to_rating
from store.records import Completion, Judgement, Rating


@dataclass(frozen=True, slots=True)
class Edit:
    """A text that the owner put in place of an answer; `stands` while it is their newest word on it."""

    seq: int
    rating_id: str
    text: str
    stands: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, the newest rating of its owner, and the texts they made of it, oldest first."""

    seq: int
    completion: Completion
    rating: Rating | None = None
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A standing judgement on two answers of the conversation."""

    seq: int
    judgement: Judgement
    completion_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything in the order it happened; empty for one that has no answer yet."""

    answers: tuple[Answered, ...] = ()
    verdicts: tuple[Verdict, ...] = ()


def read_whole_conversation(store: Store, conversation_id: str, person_id: str) -> Conversation:
    """This person's conversation; NotFound when there is none of theirs with that id."""
    with store.read() as cursor:
        completions = _read_completions(cursor, conversation_id, person_id)
        rated = _read_ratings(cursor, conversation_id, person_id)
        verdicts = _read_verdicts(cursor, conversation_id, person_id)
    if not completions:
        raise NotFound(f"no conversation of this person has the id {conversation_id!r}")
    answers = []
    for seq, completion in completions:
        said = rated[completion.completion_id]
        newest = said[-1][1] if said else None
        answers.append(Answered(seq, completion, newest, _list_edits(said, completion.text)))
    return Conversation(tuple(answers), tuple(verdicts))


def _list_edits(said: list[tuple[int, Rating]], original: str) -> tuple[Edit, ...]:
    """Each text once, at its first place: a thumb given afterwards carries the same text again."""
    standing = said[-1][1].correction if said else None
    edits: dict[str, Edit] = {}
    for seq, rating in said:
        text = rating.correction
        if text is not None and text != original and text not in edits:
            edits[text] = Edit(seq, rating.rating_id, text, text == standing)
    return tuple(edits.values())


def _read_completions(
    cursor: duckdb.DuckDBPyConnection, conversation_id: str, person_id: str
) -> list[tuple[int, Completion]]:
    sql = f"""
        SELECT seq, {COMPLETION_COLUMNS} FROM completions
        WHERE conversation_id = ? AND person_id = ? ORDER BY seq"""
    rows = cursor.execute(sql, [conversation_id, person_id]).fetchall()
    return [(row[0], to_completion(row[1:])) for row in rows]


def _read_ratings(
    cursor: duckdb.DuckDBPyConnection, conversation_id: str, person_id: str
) -> defaultdict[str, list[tuple[int, Rating]]]:
    sql = f"""
        SELECT r.seq, {ratings.COLUMNS} FROM ratings AS r JOIN completions AS c USING (completion_id)
        WHERE c.conversation_id = ? AND r.person_id = ? ORDER BY r.seq"""
    found: defaultdict[str, list[tuple[int, Rating]]] = defaultdict(list)
    for seq, *columns in cursor.execute(sql, [conversation_id, person_id]).fetchall():
        rating = to_rating(tuple(columns))
        found[rating.completion_id].append((seq, rating))
    return found


def _read_verdicts(cursor: duckdb.DuckDBPyConnection, conversation_id: str, person_id: str) -> list[Verdict]:
    sql = f"""
        SELECT j.seq, t.first_id, t.second_id, {judgements.COLUMNS}
        FROM judgements AS j JOIN tasks AS t USING (task_id)
        JOIN completions AS c ON c.completion_id = t.first_id
        WHERE c.conversation_id = ? AND j.person_id = ? AND t.purpose = 'chat' AND NOT j.undone
        ORDER BY j.seq"""
    rows = cursor.execute(sql, [conversation_id, person_id]).fetchall()
    return [
        Verdict(seq, to_judgement(tuple(columns)), frozenset((first_id, second_id)))
        for seq, first_id, second_id, *columns in rows
    ]
