"""Open WebUI's feedback export: a thumb on one message of a chat, with a snapshot of that chat.

A thumb is a rating. When the message stood beside answers of other models, it also says that it beat them
(thumb up) or lost to them (thumb down), as Open WebUI's own leaderboard reads it: a pair each.
"""

from __future__ import annotations

from typing import Any, cast

from store.formats.found import (
    BadField,
    Found,
    Names,
    Row,
    Skip,
    has,
    make_pair,
    make_rating,
    read_moment,
    read_name,
    read_object,
    rest_of,
)
from store.records import Message

MOST_TURNS = 500


def is_feedback(row: Row) -> bool:
    """`data` with a rating, and `meta` with the message it is about."""
    return (
        has(row, "data", "meta")
        and isinstance(row["data"], dict)
        and isinstance(row["meta"], dict)
        and "rating" in row["data"]
    )


def read_feedback(row: Row, _names: Names) -> list[Found]:
    """The rating and the pairs with its siblings."""
    data, meta = read_object(row, "data"), read_object(row, "meta")
    rating = str(data.get("rating"))
    if rating in ("0", "None", ""):
        return [Skip("feedback without a thumb")]
    if rating not in ("1", "-1"):
        raise BadField("data.rating", f"{rating[:40]!r} is not 1 or -1")
    messages = _find_messages(row)
    rated = messages.get(str(meta.get("message_id")))
    if not isinstance(rated, dict):
        raise BadField("meta.message_id", "is not a message of the snapshot")
    if rated.get("role") != "assistant":
        raise BadField("meta.message_id", "is not an answer")
    asked = _conversation(rated, messages)
    extra = rest_of(row, ("user_id", "snapshot", "created_at"))
    about = {
        "annotator": read_name(row, "user_id"),
        "at": read_moment(row.get("created_at")),
        "extra": extra,
    }
    text = _content(rated)
    found: list[Found] = [make_rating(asked, text, rating == "1", **cast(Any, about))]
    for other in _siblings(rated, messages) if data.get("sibling_model_ids") else ():
        chosen, rejected = (text, other) if rating == "1" else (other, text)
        found.append(make_pair(asked, chosen, rejected, **cast(Any, about)))
    return found


def _find_messages(row: Row) -> dict[str, Any]:
    """The snapshot's messages by id; the chat lies once or twice deep, by version."""
    if row.get("snapshot") is None:
        raise BadField("snapshot", "is missing; export the feedback with its snapshots")
    chat: Any = read_object(row, "snapshot").get("chat")
    for _ in range(2):
        history = chat.get("history") if isinstance(chat, dict) else None
        if isinstance(history, dict) and isinstance(history.get("messages"), dict):
            return cast("dict[str, Any]", history["messages"])
        chat = chat.get("chat") if isinstance(chat, dict) else None
    raise BadField("snapshot.chat", "has no history of messages")


def _conversation(rated: dict[str, Any], messages: dict[str, Any]) -> tuple[Message, ...]:
    said: list[Message] = []
    parent = messages.get(str(rated.get("parentId")))
    while isinstance(parent, dict):
        if len(said) == MOST_TURNS:
            raise BadField("snapshot.chat", "has messages that are their own ancestors")
        role = parent.get("role")
        if role not in ("system", "user", "assistant"):
            raise BadField("snapshot.chat", f"has a message of the role {str(role)[:40]!r}")
        said.append(cast(Message, {"role": role, "content": _content(parent)}))
        parent = messages.get(str(parent.get("parentId")))
    if not said or said[0]["role"] != "user":
        raise BadField("snapshot.chat", "has no message of the user before the rated answer")
    return tuple(reversed(said))


def _siblings(rated: dict[str, Any], messages: dict[str, Any]) -> list[str]:
    return [
        _content(other)
        for other in messages.values()
        if isinstance(other, dict)
        and other is not rated
        and other.get("role") == "assistant"
        and other.get("parentId") == rated.get("parentId")
    ]


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if not isinstance(content, str):
        raise BadField("snapshot.chat", "has a message without text")
    return content
