"""OpenAssistant (OASST1): messages of conversation trees, in any order; ranked siblings become pairs.

Every two ranked answers to one message are a pair; the strength is the distance of their ranks, 3 at most.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from store.errors import BadValue
from store.formats.found import (
    BadField,
    Found,
    Row,
    Skip,
    has,
    make_pair,
    read_moment,
    read_name,
    read_number,
    read_text,
    rest_of,
)
from store.records import STRENGTHS, Message

DELETED = Skip("a deleted message")
NO_RANK = Skip("an answer without a rank")
NO_PARENT = Skip("an answer whose conversation is not in this file")
NO_ANSWER = Skip("a message that is no answer")
MOST_TURNS = 500
_ROLES = {"prompter": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class _Node:
    position: int
    message_id: str
    parent_id: str
    text: str
    role: str
    rank: int | None
    is_deleted: bool
    fields: Row


def is_oasst(row: Row) -> bool:
    """`message_id`, `text` and `role`, with a `parent_id` that may be null."""
    return has(row, "message_id", "text", "role") and "parent_id" in row


def read_trees(rows: Sequence[Row]) -> Iterator[tuple[int, Found | BadValue]]:
    """What each row gives, or its fault, with the row's position; a pair is the better answer's."""
    nodes: dict[str, _Node] = {}
    answers: dict[str, list[_Node]] = defaultdict(list)
    for position, row in enumerate(rows):
        try:
            node = _read_node(position, row)
            if node.message_id in nodes:
                raise BadField("message_id", f"{node.message_id[:40]!r} is given twice")
        except BadValue as error:
            yield position, error
            continue
        nodes[node.message_id] = node
        left_out = _why_left_out(node)
        if left_out is None:
            answers[node.parent_id].append(node)
        else:
            yield position, left_out
    for siblings in answers.values():
        yield from _pair_siblings(siblings, nodes)


def _why_left_out(node: _Node) -> Skip | None:
    if node.is_deleted:
        return DELETED
    if node.role != "assistant":
        return NO_ANSWER
    return NO_RANK if node.rank is None else None


def _pair_siblings(siblings: list[_Node], nodes: dict[str, _Node]) -> Iterator[tuple[int, Found | BadValue]]:
    try:
        messages = _conversation(siblings[0], nodes)
    except BadValue as error:
        yield siblings[0].position, error
        return
    if messages is None:
        yield from ((node.position, NO_PARENT) for node in siblings)
        return
    ranked = sorted(siblings, key=lambda node: (node.rank or 0, node.position))
    if len(ranked) == 1:
        yield ranked[0].position, Skip("an answer without another one")
    for better, worse in itertools.combinations(ranked, 2):
        gap = (worse.rank or 0) - (better.rank or 0)
        if gap == 0:
            yield better.position, Skip("two answers of the same rank")
            continue
        yield better.position, _to_pair(messages, better, worse, gap)


def _to_pair(messages: tuple[Message, ...], better: _Node, worse: _Node, gap: int) -> Found:
    kept = rest_of(better.fields, ("text", "role", "parent_id", "deleted", "user_id"))
    extra = kept | {"rejected_message_id": worse.message_id, "rejected_rank": worse.rank}
    strength = min(gap, STRENGTHS[-1])
    at = read_moment(better.fields.get("created_date"))
    return make_pair(messages, better.text, worse.text, strength=strength, at=at, extra=extra)


def _conversation(node: _Node, nodes: dict[str, _Node]) -> tuple[Message, ...] | None:
    """What was said before, oldest first; None when a part of it is missing."""
    said: list[Message] = []
    parent_id = node.parent_id
    while parent_id:
        parent = nodes.get(parent_id)
        if parent is None or parent.is_deleted:
            return None
        if len(said) == MOST_TURNS:
            raise BadField("parent_id", f"{node.parent_id[:40]!r} leads in a circle")
        role = "user" if parent.role == "prompter" else "assistant"
        said.append(Message(role=role, content=parent.text))  # type: ignore[typeddict-item]
        parent_id = parent.parent_id
    if not said or said[0]["role"] != "user":
        return None
    return tuple(reversed(said))


def _read_node(position: int, row: Row) -> _Node:
    role = read_text(row, "role")
    if role not in _ROLES:
        raise BadField("role", f"{role[:40]!r} is neither prompter nor assistant")
    rank = None
    if row.get("rank") is not None:
        rank = int(read_number(row, "rank"))
    return _Node(
        position,
        message_id=read_text(row, "message_id", may_be_empty=False),
        parent_id=read_name(row, "parent_id"),
        text=read_text(row, "text"),
        role=role,
        rank=rank,
        is_deleted=row.get("deleted") is True,
        fields=row,
    )
