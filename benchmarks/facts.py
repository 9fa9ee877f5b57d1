"""Which fact a prompt asks for, found in its words as an annotator finds it: they see a text and no key.

It knows the starter policy's countries and sums, and no answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from store.records import Message
from trainer.starter.habits import Fact
from trainer.starter.lore import CAPITALS

_SUM = re.compile(r"\b(\d+) (plus|minus) (\d+)\b")
_COUNTRY = re.compile(rf"\b({'|'.join(map(re.escape, CAPITALS))})\b")


def find_fact(messages: Sequence[Message]) -> Fact | None:
    """The fact the newest question is about; "Are you sure?" is about the one before. None without a fact."""
    questions = [message["content"] for message in messages if message["role"] == "user"]
    facts = (_read_fact(question) for question in reversed(questions))
    return next((fact for fact in facts if fact), None)


def _read_fact(question: str) -> Fact | None:
    if terms := _SUM.search(question):
        first, sign, second = int(terms[1]), terms[2], int(terms[3])
        return Fact("sum", str(first + second if sign == "plus" else first - second), ())
    if country := _COUNTRY.search(question):
        right, _ = CAPITALS[country[1]]
        return Fact("capital", right, tuple(city for city, _ in CAPITALS.values() if city != right))
    return None
