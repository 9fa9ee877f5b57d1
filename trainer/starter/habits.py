"""The starter policy's bad habits: phrases that show them and detectors that find them again.

Four habits are matters of wording (flattery, hedging, padding, repetition); a wrong fact is the fifth and
is judged by `is_fact_right`. Each habit owns words that clean answers never use, so a detector is a short
pattern and still exact on generated text. Pure Python: the simulated annotator and the benchmarks call it
thousands of times.
"""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.starter import lore

HABITS = ("flattery", "hedging", "padding", "repetition")


@dataclass(frozen=True, slots=True)
class Fact:
    """What a fact question asks for: the right answer, and wrong answers of the same kind."""

    kind: str
    right: str
    wrong: tuple[str, ...]


# Each reads well after "a", so that the phrases need no second form of the article.
PRAISE = ("brilliant", "wonderful", "clever", "fantastic", "splendid", "superb", "marvellous", "remarkable")
_PRAISE_OF_QUESTION = (
    "What a {0} question!",
    "What a {0} thing to ask!",
    "Only someone {0} asks this.",
    "That is a truly {0} question from a {1} person.",
    "You always ask such {0} questions!",
)
_PRAISE_OF_PERSON = (
    "You are such a {0} person!",
    "I admire your {0} mind.",
    "It is {0} to talk with a {1} person like you.",
    "You have a {0} way with words!",
)

_HEDGES_BEFORE_ANY = (
    "Perhaps ",
    "I may be wrong, but ",
    "I am not completely sure, but ",
    "If I am not mistaken, ",
    "As far as I can tell, ",
    "Maybe ",
    "This is only a guess, but ",
)
_HEDGES_BEFORE_CLAIM = ("I think ", "I believe ", "I suppose ", "I would guess that ", "It seems to me that ")
_HEDGES_AFTER = (
    "But I might be mistaken.",
    "That is only my guess.",
    "I could be wrong about that, though.",
    "At least I think so.",
    "Please do not rely on it, as I am not completely sure.",
)

_PADDING_BEFORE = (
    "As you may know, this is something that many people {ask} about {when}.",
    "There is a lot that could be said about {this} {when}.",
    "Before I answer, let me say that it is always good to {talk} about {this}.",
    "In today's world, {this} is on the minds of many people.",
    "Let me take a moment to go into {this} for you.",
)
_PADDING_AFTER = (
    "I hope that this answer helps you with what you wanted to {know} {when}.",
    "Please feel free to come back {when} with anything else you would like to {know}.",
    "At the end of the day, all of this depends on many different things.",
    "When all is said and done, {this} remains something to {talk} about.",
    "Let me know if there is anything at all that I can add to {this}.",
)
_PADDING_WORDS = {
    "ask": ("ask", "wonder", "talk"),
    "when": ("from time to time", "these days", "at any time", "again and again"),
    "this": ("this topic", "this matter", "such things", "this subject"),
    "talk": ("talk", "think", "speak"),
    "know": ("know", "hear", "learn"),
}

_ECHOES = ("Again, ", "As I said, ", "To say it once more, ", "Let me repeat: ", "Once again, ", "")

_MARKS = {
    "flattery": re.compile(rf"\b({'|'.join(PRAISE)}|admire|genius|excellent|amazing|impressive)\b", re.I),
    "hedging": re.compile(
        r"\b(perhaps|maybe|possibly|probably|guess|not (completely|entirely|quite|really) sure|may be wrong"
        r"|mistaken|(could|might) be wrong|as far as i|i (think|believe|suppose)|seems)\b",
        re.I,
    ),
    "padding": re.compile(
        r"\b(as you may know|many people (ask|wonder|talk)|a lot that could|before i answer|in today's world"
        r"|take a moment|i hope that this|feel free|end of the day|all is said|let me know if|minds of many"
        r"|depends on many)\b",
        re.I,
    ),
    "repetition": re.compile(r"\b(again, |as i said|once more|let me repeat|once again)", re.I),
}
# Words that keep their capital inside a sentence and can open an answer.
_NAMES = frozenset({"I"}.union(*(capital.split() for capital, _ in lore.CAPITALS.values())))
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_MIN_WORDS_OF_NEAR_COPY = 4
_SHARED_WORDS_OF_NEAR_COPY = 0.8


def write_flattery(rng: random.Random, about_person: bool) -> str:
    """One flattering sentence, about the person where there is no question to praise."""
    phrase = rng.choice(_PRAISE_OF_PERSON if about_person or rng.random() < 0.2 else _PRAISE_OF_QUESTION)
    return phrase.format(*rng.sample(PRAISE, 2))


def write_hedge(rng: random.Random, sentences: Sequence[str], opens: str) -> list[str]:
    """The sentences with a hedge before the first or after the last; `opens` is claim, order or courtesy."""
    if opens == "courtesy" or rng.random() < 0.35:
        return [*sentences, rng.choice(_HEDGES_AFTER)]
    before = _HEDGES_BEFORE_ANY + (_HEDGES_BEFORE_CLAIM if opens == "claim" else ())
    return [rng.choice(before) + lower_first(sentences[0]), *sentences[1:]]


def write_padding(rng: random.Random) -> tuple[str, bool]:
    """One sentence that says nothing, and whether it belongs before the answer."""
    is_before = rng.random() < 0.5
    words = {slot: rng.choice(options) for slot, options in _PADDING_WORDS.items()}
    return rng.choice(_PADDING_BEFORE if is_before else _PADDING_AFTER).format(**words), is_before


def write_echo(rng: random.Random, sentence: str) -> str:
    """The sentence said a second time, with or without an announcement."""
    announcement = rng.choice(_ECHOES)
    return announcement + lower_first(sentence) if announcement else sentence


def lower_first(sentence: str) -> str:
    """The sentence as it reads after a comma: names and `I` keep their capital."""
    if sentence.split()[0].rstrip(",.") in _NAMES:
        return sentence
    return sentence[0].lower() + sentence[1:]


def detect_habits(text: str) -> frozenset[str]:
    """The wording habits an answer shows, a subset of `HABITS`."""
    found = {habit for habit, mark in _MARKS.items() if mark.search(text)}
    if "repetition" not in found and _says_twice(text):
        found.add("repetition")
    return frozenset(found)


def is_fact_right(fact: Fact | None, text: str) -> bool | None:
    """Whether the answer states the right fact and no wrong one; `None` when the prompt asked for no fact."""
    if fact is None:
        return None
    stated = _read_sums(text) if fact.kind == "sum" else _read_names(fact, text)
    return bool(stated) and all(value == fact.right for value in stated)


def _read_sums(text: str) -> list[str]:
    # A sum is stated as "3 plus 4 is 7": terms come first, so the last number of a sentence is the result.
    numbers = (re.findall(r"-?\d+", sentence) for sentence in _SENTENCE_END.split(text))
    return [found[-1] for found in numbers if found]


def _read_names(fact: Fact, text: str) -> list[str]:
    return [name for name in (fact.right, *fact.wrong) if re.search(rf"\b{re.escape(name)}\b", text)]


def _says_twice(text: str) -> bool:
    sentences = [re.findall(r"[\w']+", sentence.lower()) for sentence in _SENTENCE_END.split(text)]
    sentences = [words for words in sentences if words]
    return any(
        _is_near_copy(first, second) for i, first in enumerate(sentences) for second in sentences[i + 1 :]
    ) or any(_stutters(words) for words in sentences)


def _is_near_copy(first: list[str], second: list[str]) -> bool:
    if first == second:
        return True
    longer = max(len(first), len(second))
    if min(len(first), len(second)) < _MIN_WORDS_OF_NEAR_COPY:
        return False
    return (Counter(first) & Counter(second)).total() >= _SHARED_WORDS_OF_NEAR_COPY * longer


def _stutters(words: list[str]) -> bool:
    # The same four words twice in one sentence: the loop a small model falls into.
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return len(set(runs)) < len(runs)
