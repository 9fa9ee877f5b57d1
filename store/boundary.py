"""What may enter the store: text, names, message lists. Everything else is refused here, with a sentence.

Text is kept byte for byte; only what one of our stores or formats could not give back is refused: NUL, which
PostgreSQL rejects, and lone surrogates, which UTF-8 cannot hold.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence

from store.errors import BadValue
from store.records import Message

MAX_NAME_CHARS = 80
MAX_REASONS = 50


def check_text(what: str, text: object, *, may_be_empty: bool = True) -> str:
    """`text` itself when it is a string we can give back unchanged; BadValue otherwise."""
    if not isinstance(text, str):
        raise BadValue(f"{what} must be text, not {type(text).__name__}")
    if "\0" in text:
        raise BadValue(f"{what} holds a NUL character at position {text.index(chr(0))}; remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadValue(
            f"{what} holds half of a surrogate pair at position {error.start}; it is not text"
        ) from error
    if not text and not may_be_empty:
        raise BadValue(f"{what} is empty")
    return text


def check_name(name: object) -> str:
    """A person's name without surrounding space: 1 to 80 printable characters, composed (NFC)."""
    text = unicodedata.normalize("NFC", check_text("name", name).strip())
    if not 1 <= len(text) <= MAX_NAME_CHARS or not text.isprintable():
        raise BadValue(f"name {text[:100]!r} must be 1 to {MAX_NAME_CHARS} printable characters")
    return text


def check_one_of(what: str, value: object, allowed: Collection[object]) -> None:
    """BadValue naming the allowed values when `value` is not one of them."""
    if value not in allowed:
        raise BadValue(f"{what} {value!r} is not one of {', '.join(str(known) for known in allowed)}")


def check_messages(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The message list as plain dicts; BadValue unless it is well formed and ends with the user."""
    if isinstance(messages, str) or not messages:
        raise BadValue("messages must be a list with at least one message")
    checked = tuple(_check_message(position, message) for position, message in enumerate(messages))
    if checked[-1]["role"] != "user":
        raise BadValue(f"the last message is from {checked[-1]['role']!r}; a prompt ends with the user")
    return checked


def check_reasons(reasons: Sequence[str]) -> tuple[str, ...]:
    """The reasons as a tuple of texts, in their order."""
    if isinstance(reasons, str) or len(reasons) > MAX_REASONS:
        raise BadValue(f"reasons must be a list of at most {MAX_REASONS} texts")
    return tuple(check_text("a reason", reason, may_be_empty=False) for reason in reasons)


def _check_message(position: int, message: Message) -> Message:
    if not isinstance(message, dict) or set(message) != {"role", "content"}:
        raise BadValue(f"message {position} must have exactly a role and a content")
    check_one_of(f"role of message {position}", message["role"], ("system", "user", "assistant"))
    check_text(f"content of message {position}", message["content"])
    return Message(role=message["role"], content=message["content"])
