"""TRL's own formats: preference (with or without a prompt) and unpaired; plain text and conversational.

Without a prompt, what both answers begin with is the prompt, cut at a space as TRL's `extract_prompt` does.
"""

from __future__ import annotations

from itertools import takewhile

from store.formats.found import (
    SAME_TEXT,
    BadField,
    Found,
    Names,
    Row,
    Skip,
    ask,
    has,
    is_conversation,
    make_pair,
    make_rating,
    read_messages,
    read_moment,
    read_prompt,
    read_text,
    read_truth,
    rest_of,
    split_pair,
)
from store.records import Message


def is_preference(row: Row) -> bool:
    """`chosen` and `rejected`, with a `prompt` or as conversations."""
    return has(row, "chosen", "rejected") and (
        "prompt" in row or is_conversation(row["chosen"]) or not ("question" in row or "input" in row)
    )


def read_preference(row: Row, _names: Names) -> list[Found]:
    """One pair; the strength is 1, since the format has no word for it."""
    used = ("prompt", "chosen", "rejected")
    parts = _with_prompt(row) if row.get("prompt") is not None else _without_prompt(row)
    if isinstance(parts, Skip):
        return [parts]
    messages, chosen, rejected = parts
    at = read_moment(row.get("created_at"))
    return [make_pair(messages, chosen, rejected, at=at, extra=rest_of(row, used))]


def is_unpaired(row: Row) -> bool:
    """`prompt`, `completion` and `label`."""
    return has(row, "prompt", "completion", "label")


def read_unpaired(row: Row, _names: Names) -> list[Found]:
    """One rating; `label` true is desirable."""
    prompt = read_prompt(row, "prompt")
    answer = _answer(row, "completion", prompt)
    if isinstance(answer, Skip):
        return [answer]
    extra = rest_of(row, ("prompt", "completion", "label"))
    at = read_moment(row.get("created_at"))
    return [make_rating(prompt, answer, read_truth(row, "label"), at=at, extra=extra)]


def _with_prompt(row: Row) -> tuple[tuple[Message, ...], str, str] | Skip:
    prompt = read_prompt(row, "prompt")
    chosen, rejected = _answer(row, "chosen", prompt), _answer(row, "rejected", prompt)
    if isinstance(chosen, Skip):
        return chosen
    return rejected if isinstance(rejected, Skip) else (prompt, chosen, rejected)


def _without_prompt(row: Row) -> tuple[tuple[Message, ...], str, str] | Skip:
    if is_conversation(row.get("chosen")):
        return split_pair(read_messages(row, "chosen"), read_messages(row, "rejected"), "chosen")
    chosen, rejected = read_text(row, "chosen"), read_text(row, "rejected")
    if chosen == rejected:
        return SAME_TEXT
    shared = sum(1 for _ in takewhile(lambda at: at[0] == at[1], zip(chosen, rejected, strict=False)))
    if shared and chosen[shared - 1] == " ":
        shared -= 1
    if not chosen[:shared].strip():
        raise BadField("prompt", "is missing, and chosen and rejected do not begin alike")
    return ask(chosen[:shared]), chosen[shared:], rejected[shared:]


def _answer(row: Row, name: str, prompt: tuple[Message, ...]) -> str | Skip:
    """The one answer of the assistant; a conversation may repeat the prompt before it."""
    if not is_conversation(row.get(name)):
        return read_text(row, name)
    messages = read_messages(row, name)
    if messages[: len(prompt)] == prompt:
        messages = messages[len(prompt) :]
    if len(messages) > 1:
        return Skip("an answer of several turns")
    if not messages or messages[0]["role"] != "assistant":
        raise BadField(name, "must hold one answer of the assistant")
    return messages[0]["content"]
