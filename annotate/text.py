"""The rule for text that people send: no hidden characters, and not without end. Knows no HTTP."""

from __future__ import annotations

import re

from annotate.errors import TextTooLong
from store.errors import BadValue

# The store refuses NUL and lone surrogates; from people we take no other control character either.
_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def refuse_controls(text: str) -> str:
    """The text itself; BadValue naming the place of a control character or half a surrogate pair."""
    found = _REFUSED.search(text)
    if found:
        raise BadValue(
            f"character {found.start() + 1} is U+{ord(found.group()):04X}, which text may not contain"
        )
    return text


def limit(text: str, most: int, name: str) -> str:
    """The text itself when clean and short enough; BadValue or TextTooLong naming the field otherwise."""
    if len(text) > most:
        raise TextTooLong(f"{name} has {len(text)} characters; at most {most} are kept")
    try:
        return refuse_controls(text)
    except BadValue as error:
        raise BadValue(f"{name}: {error}") from None


def limit_reasons(reasons: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """The reason chips in the order given, without repeats; at most 12 of 80 characters."""
    if len(reasons) > MOST_REASONS:
        raise BadValue(f"{len(reasons)} reasons were given; at most {MOST_REASONS} are kept")
    return tuple(dict.fromkeys(limit(reason, MOST_REASON_CHARS, "a reason") for reason in reasons))


MOST_COMMENT = 4_000
MOST_CORRECTION = 32_000
MOST_REASONS = 12
MOST_REASON_CHARS = 80
