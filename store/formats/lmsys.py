"""LMSYS Chatbot Arena: 33k and 100k (two conversations and a winner) and 55k (JSON lists and three flags).

A tie teaches nothing; "tie (bothbad)" says that both answers are undesirable.
"""

from __future__ import annotations

from datetime import datetime

from store.formats.found import (
    SAME_TEXT,
    TIE,
    BadField,
    Found,
    Names,
    Row,
    Skip,
    ask,
    has,
    make_pair,
    make_rating,
    read_list,
    read_messages,
    read_moment,
    read_name,
    read_text,
    read_truth,
    rest_of,
    split_pair,
)
from store.records import Message

BOTH_BAD = "tie (bothbad)"
WINNERS = ("model_a", "model_b", "tie", BOTH_BAD)


def is_arena(row: Row) -> bool:
    """`conversation_a`, `conversation_b` and `winner`."""
    return has(row, "conversation_a", "conversation_b", "winner")


def read_arena(row: Row, _names: Names) -> list[Found]:
    """One pair, two undesirable ratings, or nothing."""
    winner = read_text(row, "winner")
    if winner not in WINNERS:
        raise BadField("winner", f"{winner[:40]!r} is not one of {', '.join(WINNERS)}")
    first, second = read_messages(row, "conversation_a"), read_messages(row, "conversation_b")
    parts = split_pair(first, second, "conversation_a")
    if isinstance(parts, Skip):
        return [parts]
    extra = rest_of(row, ("conversation_a", "conversation_b", "judge"))
    return _judge(row, parts, winner, extra, read_name(row, "judge"))


def is_arena_55k(row: Row) -> bool:
    """`prompt`, `response_a`, `response_b` and `winner_model_a`."""
    return has(row, "prompt", "response_a", "response_b") and "winner_model_a" in row


def read_arena_55k(row: Row, _names: Names) -> list[Found]:
    """One pair or nothing; what was said in several turns is left out, since only the whole was judged."""
    asked, first, second = (_only_text(row, name) for name in ("prompt", "response_a", "response_b"))
    if isinstance(asked, Skip) or isinstance(first, Skip) or isinstance(second, Skip):
        return [next(part for part in (asked, first, second) if isinstance(part, Skip))]
    if not asked.strip():
        raise BadField("prompt", "is empty")
    flags = {name: read_truth(row, f"winner_{name}") for name in ("model_a", "model_b", "tie")}
    winners = [name for name, holds in flags.items() if holds]
    if len(winners) != 1:
        raise BadField(
            "winner_model_a", "exactly one of winner_model_a, winner_model_b and winner_tie must be 1"
        )
    extra = rest_of(row, ("prompt", "response_a", "response_b", *(f"winner_{name}" for name in flags)))
    return _judge(row, (ask(asked), first, second), winners[0], extra, "")


def _judge(
    row: Row,
    parts: tuple[tuple[Message, ...], str, str],
    winner: str,
    extra: dict[str, object],
    annotator: str,
) -> list[Found]:
    messages, first, second = parts
    at: datetime | None = read_moment(row.get("tstamp"))
    if winner == "tie":
        return [TIE]
    if first == second:
        return [SAME_TEXT]
    if winner == BOTH_BAD:
        ratings = [
            make_rating(messages, text, False, annotator=annotator, at=at, extra=extra) for text in parts[1:]
        ]
        return list(ratings)
    chosen, rejected = (first, second) if winner == "model_a" else (second, first)
    return [
        make_pair(messages, chosen, rejected, annotator=annotator, at=at, extra=extra | {"winner": winner})
    ]


def _only_text(row: Row, name: str) -> str | Skip:
    turns = read_list(row, name)
    if len(turns) != 1:
        return Skip("a conversation of several turns")
    if turns[0] is None:
        return Skip("an answer that is missing")
    if not isinstance(turns[0], str):
        raise BadField(name, "must be a list of texts")
    return turns[0]
