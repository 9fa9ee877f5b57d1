"""Which rows are held out: whole families of conversations and prompts, so that none is on both sides.

Two rows are of one family when they come from one conversation or open with the same question, blind to case,
spacing, punctuation and composition. A prompt that another one continues shares its opening, so it is of the
same family. A chain of such ties counts too.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from store.records import Message, PairRow, RatingRow

Row = PairRow | RatingRow
_CONVERSATION = "conversation "


def opening_digest(messages: Sequence[Message]) -> str:
    """SHA-256 of the first question's words; system messages do not count, nor does what comes later."""
    first = next((m["content"] for m in messages if m["role"] == "user"), None)
    text = "\n".join(m["content"] for m in messages) if first is None else first
    return hashlib.sha256(_plain(text).encode()).hexdigest()


def _plain(text: str) -> str:
    """Letters, marks and digits; a text without any stays as it is."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = "".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in folded).split()
    return " ".join(words) or " ".join(folded.split())


def is_held_out(messages: Sequence[Message], holdout_share: float) -> bool:
    """Whether a prompt belongs to the holdout by itself; a larger share only ever adds prompts."""
    return _lot(opening_digest(messages)) < holdout_share


def _lot(digest: str) -> float:
    return int(digest[:8], 16) / 2**32


def find_held_out(rows: Iterable[Row], holdout_share: float, reserved: Collection[str] = ()) -> set[str]:
    """The opening digests of every family that is held out.

    A family is held out when any of its openings is, by its own lot or because it is in `reserved`. So what
    was once held out stays held out: new rows can only draw a family into the holdout.
    """
    families = _Families()
    for row in rows:
        read = opening_digest(row.messages)
        # What was asked first may have been too far back for the model to read; it still is the opening.
        families.join(read, row.opening or read)
        if row.conversation_id:
            families.join(read, f"{_CONVERSATION}{row.conversation_id}")
    openings = [name for name in families.names() if not name.startswith(_CONVERSATION)]
    out = {
        families.find(opening) for opening in openings if _lot(opening) < holdout_share or opening in reserved
    }
    return {opening for opening in openings if families.find(opening) in out} | set(reserved)


class _Families:
    """Disjoint sets of names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        """The name that stands for its family."""
        root = self._parent.setdefault(name, name)
        while root != self._parent[root]:
            root = self._parent[root]
        while self._parent[name] != root:
            self._parent[name], name = root, self._parent[name]
        return root

    def join(self, one: str, other: str) -> None:
        """Make two families one."""
        self._parent[self.find(one)] = self.find(other)

    def names(self) -> list[str]:
        """Everything that was ever joined."""
        return list(self._parent)
