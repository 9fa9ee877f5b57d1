"""Argilla 2 records: fields, and responses by question; only what was submitted counts.

The question is a choice between the two answers, a ranking of them, or a rating of each of two numbers apart.
"""

from __future__ import annotations

from typing import Any

from store.formats.found import (
    TIE,
    BadField,
    Found,
    Names,
    Row,
    Skip,
    has,
    kind_of,
    make_pair,
    read_moment,
    read_name,
    read_object,
    rest_of,
)
from store.formats.sides import find_prompt, find_sides, find_winner, read_side

DRAFT = Skip("a response that was not submitted")
UNANSWERED = Skip("a record without a response")


def is_argilla(row: Row) -> bool:
    """`fields` and `responses` as objects."""
    return isinstance(row.get("fields"), dict) and isinstance(row.get("responses"), dict)


def read_argilla(row: Row, names: Names) -> list[Found]:
    """A pair for each submitted response to the question."""
    fields, responses = read_object(row, "fields"), read_object(row, "responses")
    question = _find_question(responses, names)
    if question is None:
        return [UNANSWERED]
    first, second = find_sides(fields, names, "fields")
    prompt = find_prompt(fields, names, "fields")
    texts = {"first": read_side(fields, first), "second": read_side(fields, second)}
    answers = responses[question]
    if not isinstance(answers, list):
        raise BadField(f"responses.{question}", f"must be a list, not {kind_of(answers)}")
    used = ("prompt", first, second)
    extra = rest_of(row, ("fields", "responses")) | {
        "question": question,
        "fields": rest_of(
            fields, (*used, *(name for name in fields if fields[name] == prompt[-1]["content"]))
        ),
    }
    found: list[Found] = []
    for answer in answers:
        if not isinstance(answer, dict):
            raise BadField(f"responses.{question}", "must hold objects with a value")
        if answer.get("status", "submitted") != "submitted":
            found.append(DRAFT)
            continue
        side = _winner(answer.get("value"), first, second, f"responses.{question}")
        if side == "tie":
            found.append(TIE)
            continue
        other = "second" if side == "first" else "first"
        at = read_moment(row.get("updated_at")) or read_moment(row.get("inserted_at"))
        annotator = read_name(answer, "user_id")
        found.append(make_pair(prompt, texts[side], texts[other], annotator=annotator, at=at, extra=extra))
    return found or [UNANSWERED]


def _find_question(responses: dict[str, Any], names: Names) -> str | None:
    if "question" in names:
        if names["question"] not in responses:
            return None
        return names["question"]
    answered = [name for name, given in responses.items() if given]
    preferences = [name for name in answered if "prefer" in name.casefold() or "rank" in name.casefold()]
    if len(preferences or answered) > 1:
        raise BadField(
            "responses", f"answers several questions ({', '.join(answered)}); choose with question=NAME"
        )
    chosen = preferences or answered
    return chosen[0] if chosen else None


def _winner(value: object, first: str, second: str, field: str) -> str:
    if not isinstance(value, list):
        return find_winner(value, first, second, field)
    ranks: dict[str, float] = {}
    for place, item in enumerate(value, start=1):
        if isinstance(item, dict) and has(item, "value"):
            rank = item.get("rank", place)
            if isinstance(rank, bool) or not isinstance(rank, (int, float)):
                raise BadField(field, "must rank with numbers")
            ranks[find_winner(item["value"], first, second, field)] = rank
        else:
            ranks[find_winner(item, first, second, field)] = place
    if set(ranks) != {"first", "second"}:
        raise BadField(field, f"must rank {first} and {second}")
    if ranks["first"] == ranks["second"]:
        return "tie"
    return "first" if ranks["first"] < ranks["second"] else "second"
