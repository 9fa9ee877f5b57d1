"""Reads prompts from JSON lines, one prompt a line. Knows no HTTP and no store beyond the record it makes.

Nothing is repaired: a line that cannot be read is named with its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from annotate.text import refuse_controls
from store.errors import BadValue
from store.prompts import NewPrompt
from store.records import Message

LABEL_FIELDS = frozenset(("chosen", "rejected", "completion", "completions", "label", "labels", "winner"))


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was left out, and why; `line` counts from 1."""

    line: int
    problem: str


def read_prompt_lines(lines: Iterable[bytes]) -> tuple[list[NewPrompt], list[BadLine]]:
    """The prompts, and the lines that hold none. Empty lines and a byte order mark are passed over."""
    prompts: list[NewPrompt] = []
    bad: list[BadLine] = []
    for number, line in enumerate(lines, start=1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not text.strip():
            continue
        try:
            prompts.append(_read_prompt(text))
        except BadValue as error:
            bad.append(BadLine(number, str(error)))
    return prompts, bad


def _read_prompt(line: bytes) -> NewPrompt:
    row = _read_object(line)
    labels = sorted(LABEL_FIELDS.intersection(row))
    if labels:
        raise BadValue(f"only prompts can be imported so far, and this line has labels ({', '.join(labels)})")
    content = row.get("prompt", row.get("messages"))
    if isinstance(content, str):
        content = [{"role": "user", "content": content}]
    return NewPrompt(messages=_read_messages(content), tags=_read_tags(row.get("tags", [])))


def _read_object(line: bytes) -> dict[str, object]:
    try:
        row = json.loads(line.decode(), object_pairs_hook=_refuse_repeats, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise BadValue(f"byte {error.start + 1} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadValue(f"column {error.colno} is not JSON: {error.msg}") from None
    except RecursionError:
        raise BadValue("this JSON is nested too deeply") from None
    if not isinstance(row, dict):
        raise BadValue("a line must be a JSON object")
    return row


def _read_messages(content: object) -> tuple[Message, ...]:
    if not isinstance(content, list) or not content:
        raise BadValue("'prompt' must be text or a list of messages")
    messages = tuple(_read_message(message) for message in content)
    if messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise BadValue("the last message must be from the user and not empty")
    return messages


def _read_message(message: object) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("content"), str):
        raise BadValue("a message must have a role and a text content")
    role = message.get("role")
    if role not in ("system", "user", "assistant"):
        raise BadValue(f"role {role!r} is not system, user or assistant")
    return {"role": role, "content": refuse_controls(message["content"])}


def _read_tags(tags: object) -> tuple[str, ...]:
    if not isinstance(tags, list):
        raise BadValue("'tags' must be a list of texts")
    return tuple(refuse_controls(tag) if isinstance(tag, str) else _refuse_tag(tag) for tag in tags)


def _refuse_tag(tag: object) -> NoReturn:
    raise BadValue(f"tag {tag!r} is not text")


def _refuse_constant(name: str) -> NoReturn:
    raise BadValue(f"{name} is not a JSON value")


def _refuse_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise BadValue("a field is given twice")
    return row
