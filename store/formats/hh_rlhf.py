r"""Anthropic's HH-RLHF: two dialogues as text, "\n\nHuman: … \n\nAssistant: …"; they share the prompt."""

from __future__ import annotations

import re

from store.formats.found import (
    BadField,
    Found,
    Names,
    Row,
    Skip,
    has,
    make_pair,
    read_text,
    rest_of,
    split_pair,
)
from store.records import Message

_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant): ?")


def is_hh_rlhf(row: Row) -> bool:
    """`chosen` and `rejected` are texts that begin with "Human:"."""
    return has(row, "chosen", "rejected") and all(
        isinstance(row[name], str) and row[name].lstrip().startswith("Human:")
        for name in ("chosen", "rejected")
    )


def read_hh_rlhf(row: Row, _names: Names) -> list[Found]:
    """One pair, unless the dialogues part before their last answer; the set has no strengths."""
    parts = split_pair(_turns(row, "chosen"), _turns(row, "rejected"), "chosen")
    if isinstance(parts, Skip):
        return [parts]
    messages, chosen, rejected = parts
    return [make_pair(messages, chosen, rejected, extra=rest_of(row, ("chosen", "rejected")))]


def _turns(row: Row, name: str) -> list[Message]:
    text = read_text(row, name).lstrip("\n")
    pieces = _SPEAKER.split(text)
    if pieces[0].strip() or len(pieces) < 3:
        raise BadField(name, 'must begin with "Human:"')
    spoken = zip(pieces[1::2], pieces[2::2], strict=True)
    return [
        Message(role="user" if who == "Human" else "assistant", content=said.strip()) for who, said in spoken
    ]
