"""What annotation tools call the two answers, the prompt and the verdict, where a project chooses the names.

A name the caller gives (`prompt`, `first`, `second`, `question`) wins over the names tried here.
"""

from __future__ import annotations

from typing import Literal

from store.errors import BadValue
from store.formats.found import BadField, Names, Row, is_conversation, read_prompt, read_text
from store.records import Message

NAMED = ("prompt", "first", "second", "items", "question")
PROMPTS = ("prompt", "instruction", "question", "input", "history", "messages")
SIDES = (
    ("response_a", "response_b"),
    ("response-1", "response-2"),
    ("response1", "response2"),
    ("response_1", "response_2"),
    ("answer1", "answer2"),
    ("answer_1", "answer_2"),
    ("answer_a", "answer_b"),
    ("text1", "text2"),
    ("completion_a", "completion_b"),
    ("generation_1", "generation_2"),
    ("first", "second"),
    ("left", "right"),
)
_FIRST = ("1", "a", "first", "left", "response a", "answer a", "response 1", "answer 1")
_SECOND = ("2", "b", "second", "right", "response b", "answer b", "response 2", "answer 2")
_TIES = ("tie", "equal", "same", "no preference", "no_preference", "neither", "none", "both", "0")

Side = Literal["first", "second", "tie"]


def read_names(text: str) -> dict[str, str]:
    """The names out of `prompt=ask,first=uno`; BadValue for one that is none of ours."""
    names: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        ours, _, theirs = part.partition("=")
        if ours.strip() not in NAMED or not theirs.strip():
            raise BadValue(f"{part!r} names no field; write NAME=FIELD, with NAME one of {', '.join(NAMED)}")
        names[ours.strip()] = theirs.strip()
    return names


def find_prompt(fields: Row, names: Names, place: str) -> tuple[Message, ...]:
    """The prompt of the record; BadField naming what could be given when there is none."""
    known = [names["prompt"]] if "prompt" in names else [name for name in PROMPTS if name in fields]
    if not known:
        raise BadField(place, f"has no prompt; name its field with prompt=NAME, one of {_list(fields)}")
    return read_prompt(fields, known[0])


def find_sides(fields: Row, names: Names, place: str) -> tuple[str, str]:
    """The names of the two answers' fields."""
    if "first" in names and "second" in names:
        return names["first"], names["second"]
    for first, second in SIDES:
        if first in fields and second in fields:
            return first, second
    raise BadField(place, f"has no two answers; name them with first=NAME,second=NAME, of {_list(fields)}")


def read_side(fields: Row, name: str) -> str:
    """One answer as text; a list of one text or one message counts."""
    value = fields.get(name)
    if isinstance(value, list) and len(value) == 1:
        only = value[0]
        value = only.get("content") if isinstance(only, dict) else only
        return read_text({name: value}, name)
    if is_conversation(value):
        raise BadField(name, "must be one answer, not a conversation")
    return read_text(fields, name)


def find_winner(value: object, first: str, second: str, field: str) -> Side:
    """Which side a verdict names: the answer's field, or one of the words tools use."""
    written = str(value).strip().casefold()
    if written in (first.casefold(), *_FIRST):
        return "first"
    if written in (second.casefold(), *_SECOND):
        return "second"
    if written in _TIES:
        return "tie"
    raise BadField(field, f"{str(value)[:40]!r} names neither {first}, {second} nor a tie")


def _list(fields: Row) -> str:
    return ", ".join(sorted(str(name) for name in fields)[:12]) or "none"
