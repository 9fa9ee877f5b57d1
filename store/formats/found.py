"""What a format makes of a source row, and how it reads fields: every wrong one is named, none is repaired.

A format's parser returns outside labels or prompts, and a `Skip` for what a rule leaves out (a tie, a deleted
message). A label leaves here without its source, which the import stamps on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from store.clock import utc
from store.errors import BadValue
from store.prompts import NewPrompt
from store.records import Message, OutsideLabel

Row = Mapping[str, Any]
Names = Mapping[str, str]  # how a project calls its fields, where a format lets it choose

_ROLES = {"user": "user", "assistant": "assistant", "system": "system"}
_TRUE, _FALSE = ("true", "1"), ("false", "0")


class BadField(BadValue):
    """A field of a source row that cannot be used; `field` names it, the message has the name in it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"field {field!r} {problem}")
        self.field = field


@dataclass(frozen=True, slots=True)
class Skip:
    """A row, or a part of one, that a rule leaves out; counted by its reason."""

    reason: str


Found = OutsideLabel | NewPrompt | Skip

TIE = Skip("a tie teaches nothing")
SAME_TEXT = Skip("the two answers are the same text")
SEVERAL_TURNS = Skip("the two conversations part before the last answer")


def make_pair(
    messages: Sequence[Message],
    chosen: str,
    rejected: str,
    *,
    strength: int = 1,
    annotator: str = "",
    at: datetime | None = None,
    extra: dict[str, object] | None = None,
) -> OutsideLabel | Skip:
    """A pair that still needs its source; a Skip when both answers are the same."""
    if chosen == rejected:
        return SAME_TEXT
    return OutsideLabel(
        "",
        "pair",
        "",
        tuple(messages),
        chosen,
        at or utc(),
        rejected=rejected,
        strength=strength,
        annotator=annotator,
        extra=extra or {},
    )


def make_rating(
    messages: Sequence[Message],
    answer: str,
    desirable: bool,
    *,
    annotator: str = "",
    at: datetime | None = None,
    extra: dict[str, object] | None = None,
) -> OutsideLabel:
    """A rating that still needs its source."""
    return OutsideLabel(
        "",
        "rating",
        "",
        tuple(messages),
        answer,
        at or utc(),
        desirable=desirable,
        annotator=annotator,
        extra=extra or {},
    )


def ask(text: str, system: str = "") -> tuple[Message, ...]:
    """A prompt of one user message, after a system message when there is one."""
    user = Message(role="user", content=text)
    return (Message(role="system", content=system), user) if system else (user,)


def has(row: Row, *names: str) -> bool:
    """Whether the row has all of these fields and none of them is null."""
    return all(row.get(name) is not None for name in names)


def read_text(row: Row, name: str, *, may_be_empty: bool = True) -> str:
    """The field as text."""
    value = _present(row, name)
    if not isinstance(value, str):
        raise BadField(name, f"must be text, not {kind_of(value)}")
    if not value.strip() and not may_be_empty:
        raise BadField(name, "is empty")
    return value


def read_name(row: Row, name: str) -> str:
    """A pseudonym: text or a whole number as text; an empty text when the field is missing."""
    value = row.get(name)
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, (str, int)):
        return str(value)
    raise BadField(name, f"must be a name or a number, not {kind_of(value)}")


def read_number(row: Row, name: str) -> float:
    """The field as a finite number; text that is one counts, because CSV knows only text."""
    value = _present(row, name)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadField(name, f"must be a number, not {kind_of(value)}")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadField(name, f"{str(value)[:40]!r} is not a finite number")
    return number


def read_truth(row: Row, name: str) -> bool:
    """The field as true or false; 1, 0, "true" and "false" count, because CSV knows only text."""
    value = _present(row, name)
    written = str(value).strip().casefold() if isinstance(value, (bool, int, str)) else ""
    if written not in _TRUE + _FALSE:
        raise BadField(name, f"{str(value)[:40]!r} is neither true nor false")
    return written in _TRUE


def read_list(row: Row, name: str) -> list[Any]:
    """The field as a list; a text that holds a JSON list counts, because CSV knows only text."""
    value = _present(row, name)
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadField(name, "is text that is not a JSON list") from None
    if not isinstance(value, list):
        raise BadField(name, f"must be a list, not {kind_of(value)}")
    return value


def read_object(row: Row, name: str) -> dict[str, Any]:
    """The field as an object."""
    value = _present(row, name)
    if not isinstance(value, dict):
        raise BadField(name, f"must be an object, not {kind_of(value)}")
    return value


def is_conversation(value: object) -> bool:
    """Whether a field looks like messages rather than text; JSON in a CSV cell counts."""
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith('[{"'))


def read_messages(row: Row, name: str) -> tuple[Message, ...]:
    """The field as messages, whoever speaks last."""
    items = read_list(row, name)
    if not items:
        raise BadField(name, "has no messages")
    return tuple(_read_message(item, f"{name}[{number}]") for number, item in enumerate(items))


def read_prompt(row: Row, name: str) -> tuple[Message, ...]:
    """A prompt: text, or messages that end with the user."""
    if not is_conversation(_present(row, name)):
        return ask(read_text(row, name, may_be_empty=False))
    messages = read_messages(row, name)
    if messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise BadField(name, "must end with a message of the user that is not empty")
    return messages


def split_pair(
    first: Sequence[Message], second: Sequence[Message], name: str
) -> tuple[tuple[Message, ...], str, str] | Skip:
    """What both conversations share, and the one answer in which each ends; a Skip when they part earlier."""
    shared = 0
    while shared < min(len(first), len(second)) and first[shared] == second[shared]:
        shared += 1
    if shared == len(first) == len(second):
        if shared < 2 or first[-1]["role"] != "assistant":
            raise BadField(name, "must end with an answer of the assistant")
        return SAME_TEXT
    ends = [*first[shared:], *second[shared:]]
    if len(first) != shared + 1 or len(second) != shared + 1:
        return SEVERAL_TURNS
    if any(end["role"] != "assistant" for end in ends):
        raise BadField(name, "must end with an answer of the assistant")
    if not shared or first[shared - 1]["role"] != "user":
        raise BadField(name, "must hold a message of the user before the answer")
    return tuple(first[:shared]), ends[0]["content"], ends[1]["content"]


def read_moment(value: object) -> datetime | None:
    """A time as sources write it: ISO text, seconds or milliseconds since 1970; None when it is no time."""
    try:
        if isinstance(value, datetime):
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, str) and not _is_number(value):
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            seconds = float(value)
            return datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def grade(gap: float, better: float, much_better: float) -> int:
    """A score gap as strength: 1 below `better`, 2 below `much_better`, 3 from there on."""
    return 1 if gap < better else 2 if gap < much_better else 3


def rest_of(row: Row, used: Iterable[str]) -> dict[str, object]:
    """The fields nobody used, for `extra`; a null says nothing and is left out."""
    known = set(used)
    return {name: value for name, value in row.items() if name not in known and value is not None}


def kind_of(value: object) -> str:
    """What a JSON value is, in the words a person uses."""
    if value is None:
        return "null"
    names = {bool: "true or false", str: "text", list: "a list", dict: "an object", int: "a number"}
    return names.get(type(value), "a number" if isinstance(value, float) else type(value).__name__)


def _present(row: Row, name: str) -> Any:
    if row.get(name) is None:
        raise BadField(name, "is missing" if name not in row else "is null")
    return row[name]


def _read_message(item: object, place: str) -> Message:
    if not isinstance(item, dict) or not isinstance(item.get("content"), str):
        raise BadField(place, "must have a role and a text content")
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise BadField(place, f"has the role {str(role)[:40]!r}, which is not system, user or assistant")
    return cast(Message, {"role": _ROLES[role], "content": item["content"]})


def _is_number(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdigit()
