"""The prompts of the starter policy's small world: what people ask, in which words, and what counts as right.

Every prompt belongs to one split. A prompt is held out when its phrasing is kept out of training
altogether, or when its combination of a training phrasing with a country, goal, dish or sum is; so "held
out" is a property of the text and not of a seed. It knows no habits and no token.
"""

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainer.starter import lore
from trainer.starter.answers import REASONS, UNKNOWABLES, write_answer
from trainer.starter.habits import Fact
from trainer.starter.phrasings import (
    COURTESIES,
    FOLLOW_UPS,
    GREETINGS,
    QUESTIONS,
    TALK,
    TALK_WORDS,
    Phrasings,
)

Split = Literal["train", "heldout"]
Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class WorldPrompt:
    """One prompt: user and assistant turns in alternation, ending with the user's, and what it is about."""

    turns: tuple[str, ...]
    topic: str
    key: str
    ask: str
    fact: Fact | None

    @property
    def messages(self) -> list[Message]:
        """The turns as chat messages."""
        roles = ("user", "assistant")
        return [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(self.turns)]

    @property
    def question(self) -> str:
        """The last user turn, the one to be answered."""
        return self.turns[-1]

    @property
    def tags(self) -> list[str]:
        """The topic, and `follow-up` when the prompt has a history."""
        return [self.topic] + (["follow-up"] if len(self.turns) > 1 else [])


TOPIC_WEIGHTS = {
    "capitals": 24,
    "sums": 24,
    "advice": 14,
    "cooking": 11,
    "why": 13,
    "unknowable": 11,
    "greetings": 8,
    "politeness": 7,
}
FOLLOW_UP_SHARE = 0.2
_HELDOUT_SHARE_OF_COMBINATIONS = 0.3
_HELDOUT_SHARE_OF_NEW_SUMS = 0.1
_ONE_IN = 10
_GIVE_UP_AFTER = 200


def draw_prompt(rng: random.Random, split: Split) -> WorldPrompt:
    """One prompt of the split, topics in the proportions of `TOPIC_WEIGHTS`, some of them second turns."""
    topic = rng.choices(list(TOPIC_WEIGHTS), weights=list(TOPIC_WEIGHTS.values()))[0]
    if topic in FOLLOW_UPS and rng.random() < FOLLOW_UP_SHARE:
        return _draw_follow_up(rng, topic, split)
    if topic in QUESTIONS:
        return _draw_question(rng, topic, split)
    return _draw_talk(rng, topic, split)


def train_prompts(n: int, seed: int) -> list[WorldPrompt]:
    """`n` distinct prompts of the kind the starter was trained on."""
    return _draw_distinct(n, seed, "train")


def heldout_prompts(n: int, seed: int) -> list[WorldPrompt]:
    """`n` distinct prompts in phrasings or combinations that no training text contains."""
    return _draw_distinct(n, seed, "heldout")


def _draw_distinct(n: int, seed: int, split: Split) -> list[WorldPrompt]:
    rng = random.Random(seed)
    found: dict[tuple[str, ...], WorldPrompt] = {}
    repeats = 0
    while len(found) < n:
        prompt = draw_prompt(rng, split)
        repeats = repeats + 1 if prompt.turns in found else 0
        if repeats == _GIVE_UP_AFTER:
            raise ValueError(
                f"the world ran dry at {len(found)} {split} prompts, {n} were asked; ask for fewer"
            )
        found.setdefault(prompt.turns, prompt)
    return list(found.values())


def _draw_question(rng: random.Random, topic: str, split: Split) -> WorldPrompt:
    if topic == "sums":
        return _draw_sum(rng, split)
    key = rng.choice(_keys(topic))
    phrasing = _draw_phrasing(rng, QUESTIONS[topic], key, split)
    return WorldPrompt((_fill(phrasing, topic, key),), topic, key, "question", _fact(topic, key))


def _draw_sum(rng: random.Random, split: Split) -> WorldPrompt:
    # Held-out sums are new as a whole: neither their phrasing nor their terms help to recall them.
    is_new = split == "heldout" and rng.random() < _HELDOUT_SHARE_OF_NEW_SUMS
    key = rng.choice(NEW_SUMS if is_new else KNOWN_SUMS)
    phrasing = (
        rng.choice(QUESTIONS["sums"].train) if is_new else _draw_phrasing(rng, QUESTIONS["sums"], key, split)
    )
    return WorldPrompt((phrasing.format(key),), "sums", key, "question", _fact("sums", key))


def _draw_talk(rng: random.Random, topic: str, split: Split) -> WorldPrompt:
    key = rng.choice(GREETINGS if topic == "greetings" else COURTESIES)
    words = [rng.choice(options) for options in TALK_WORDS]
    phrasing = rng.choice(TALK[key].train if split == "train" else TALK[key].heldout)
    return WorldPrompt((phrasing.format(*words),), topic, key, "question", None)


def _draw_follow_up(rng: random.Random, topic: str, split: Split) -> WorldPrompt:
    first = _draw_question(rng, topic, "train")
    ask = rng.choice(list(FOLLOW_UPS[topic]))
    length = "long" if ask == "shorter" else rng.choice(("terse", "normal"))
    value = first.fact.right if first.fact else None
    reply = " ".join(write_answer(rng, topic, first.key, "question", length, value))
    key = rng.choice(_keys(topic)) if ask == "another" else first.key
    phrasings = FOLLOW_UPS[topic][ask]
    question = rng.choice(phrasings.train if split == "train" else phrasings.heldout)
    fact = _fact(topic, key)
    return WorldPrompt((*first.turns, reply, _fill(question, topic, key)), topic, key, ask, fact)


def _draw_phrasing(rng: random.Random, phrasings: Phrasings, key: str, split: Split) -> str:
    heldout_here = [phrasing for phrasing in phrasings.train if _is_heldout(phrasing, key)]
    if split == "train":
        return rng.choice([phrasing for phrasing in phrasings.train if phrasing not in heldout_here])
    if heldout_here and rng.random() < _HELDOUT_SHARE_OF_COMBINATIONS:
        return rng.choice(heldout_here)
    return rng.choice(phrasings.heldout)


def _is_heldout(*parts: str) -> bool:
    # A checksum and not a seeded draw, so that adding a country never moves another one between the splits.
    return zlib.crc32("|".join(parts).encode()) % _ONE_IN == 0


def _all_sums() -> list[str]:
    terms = range(1, lore.LARGEST_TERM + 1)
    return [f"{a} plus {b}" for a in terms for b in terms] + [
        f"{a} minus {b}" for a in terms for b in terms if a > b
    ]


KNOWN_SUMS = tuple(terms for terms in _all_sums() if not _is_heldout("sum", terms))
NEW_SUMS = tuple(terms for terms in _all_sums() if _is_heldout("sum", terms))


def _keys(topic: str) -> Sequence[str]:
    return {
        "capitals": tuple(lore.CAPITALS),
        "sums": KNOWN_SUMS,
        "advice": tuple(advice.goal for advice in lore.ADVICE),
        "cooking": tuple(recipe.dish for recipe in lore.RECIPES),
        "why": tuple(REASONS),
        "unknowable": tuple(UNKNOWABLES),
    }[topic]


def _fill(phrasing: str, topic: str, key: str) -> str:
    # "Why is the sky blue?" turns the words of "the sky is blue" round, so the lore gives both.
    if topic == "why":
        return phrasing.format(key, REASONS[key].question)
    return phrasing.format(key, UNKNOWABLES[key].question if topic == "unknowable" else "")


def _fact(topic: str, key: str) -> Fact | None:
    if topic == "capitals":
        right, _ = lore.CAPITALS[key]
        return Fact("capital", right, tuple(city for city, _ in lore.CAPITALS.values() if city != right))
    if topic == "sums":
        a, sign, b = key.split()
        right_sum = int(a) + int(b) if sign == "plus" else int(a) - int(b)
        wrong = tuple(str(right_sum + slip) for slip in (-2, -1, 1, 2) if right_sum + slip >= 0)
        return Fact("sum", str(right_sum), wrong)
    return None
