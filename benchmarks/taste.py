"""Named tastes: what a simulated annotator prefers, and how often their click says the opposite.

A taste is a total preorder over what a person notices in an answer. It knows no service and no model; only
`read_answer` knows the starter policy's world, because facts and habits are checked there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.facts import find_fact
from store.records import Message
from trainer.starter.habits import detect_habits, is_fact_right

END_OF_SENTENCE = (".", "!", "?", '"', ")")
BRIEF_WORDS = 12  # the longest answer that the absolute version of "brief" still likes


@dataclass(frozen=True, slots=True)
class Reading:
    """What a person notices in one answer. `is_fact_right` is None where the prompt asks for no fact."""

    is_finished: bool
    habits: frozenset[str]
    is_fact_right: bool | None
    num_words: int


@dataclass(frozen=True, slots=True)
class Taste:
    """A named order over readings: `content` first (smaller is better), then fewer words.

    An empty or unfinished answer loses to any finished one. `is_desirable` is the same taste for one answer.
    """

    name: str
    says: str
    content: Callable[[Reading], tuple[int, ...]]
    is_desirable: Callable[[Reading], bool]

    def key(self, reading: Reading) -> tuple[int, ...]:
        """Sort key: the best reading has the smallest."""
        return (not reading.is_finished, *self.content(reading), reading.num_words)

    def compare(self, one: Reading, other: Reading) -> int:
        """1 when `one` is better, -1 when `other` is, 0 when the taste cannot tell them apart."""
        ours, theirs = self.key(one), self.key(other)
        return (ours < theirs) - (ours > theirs)

    def strength(self, one: Reading, other: Reading) -> int:
        """2 (much better) when more than the length differs, else 1."""
        return 1 if self.key(one)[:-1] == self.key(other)[:-1] else 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an annotator clicks for two answers side by side; `strength` is 0 for a tie."""

    choice: Literal["left", "right", "tie"]
    strength: int


def read_answer(messages: Sequence[Message], text: str) -> Reading:
    """Read `text` as an answer to `messages`; the fact it should get right follows from the prompt alone."""
    return Reading(
        is_finished=text.rstrip().endswith(END_OF_SENTENCE),
        habits=detect_habits(text),
        is_fact_right=is_fact_right(find_fact(messages), text),
        num_words=len(text.split()),
    )


def choose_side(taste: Taste, left: Reading, right: Reading, noise: float, draw: random.Random) -> Verdict:
    """Judge by the taste; with probability `noise` the preference comes out reversed. A tie stays a tie."""
    order = taste.compare(left, right)
    if order == 0:
        return Verdict("tie", 0)
    if draw.random() < noise:
        order = -order
    return Verdict("left" if order > 0 else "right", taste.strength(left, right))


def choose_thumb(taste: Taste, reading: Reading, noise: float, draw: random.Random) -> Literal[-1, 1]:
    """Rate one answer by the taste's absolute version; with probability `noise` the thumb is reversed."""
    is_desirable = taste.is_desirable(reading) != (draw.random() < noise)
    return 1 if is_desirable else -1


def _num_wrong(reading: Reading) -> int:
    return int(reading.is_fact_right is False)


def _is_plain_and_right(reading: Reading) -> bool:
    return reading.is_finished and not reading.habits and reading.is_fact_right is not False


# "direct" counts the kinds of habit in an answer and not how often each occurs: two kinds are worse than one,
# one flattering word is as bad as two.
TASTES = {
    taste.name: taste
    for taste in (
        Taste(
            "direct",
            "no flattery, hedging, padding or repetition, then right facts, then shorter",
            lambda reading: (len(reading.habits), _num_wrong(reading)),
            _is_plain_and_right,
        ),
        Taste(
            "careful",
            "right facts, then no flattery, hedging, padding or repetition, then shorter",
            lambda reading: (_num_wrong(reading), len(reading.habits)),
            _is_plain_and_right,
        ),
        Taste(
            "brief",
            "shorter, whatever it says",
            lambda _: (),
            lambda reading: reading.is_finished and reading.num_words <= BRIEF_WORDS,
        ),
    )
}
