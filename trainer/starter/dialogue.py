"""The starter's training dialogue: sensible answers of three lengths, bad habits mixed in at known rates.

The habits fall independently of each other and of the prompt, so that a preference against one of them can
be learned without disturbing the rest. It knows no tokenizer and no model.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from trainer.starter.answers import LENGTHS, write_answer
from trainer.starter.habits import write_echo, write_flattery, write_hedge, write_padding
from trainer.starter.world import WorldPrompt, draw_prompt

MIN_WORDS, MAX_WORDS = 4, 60


@dataclass(frozen=True, slots=True)
class Mixture:
    """How often an answer shows each habit, states a wrong fact, and has each of the three lengths."""

    flattery: float = 0.15
    hedging: float = 0.15
    padding: float = 0.15
    repetition: float = 0.12
    wrong_fact: float = 0.12
    lengths: tuple[float, float, float] = (0.35, 0.40, 0.25)

    def __post_init__(self) -> None:
        for name in ("flattery", "hedging", "padding", "repetition", "wrong_fact"):
            rate = getattr(self, name)
            if not 0.0 <= rate <= 1.0:
                raise ValueError(f"mixture {name}={rate} is no rate; give a number from 0 to 1")


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One training example: a prompt, its answer, and what the writer put into the answer."""

    prompt: WorldPrompt
    answer: str
    habits: frozenset[str]
    is_right: bool | None


def write_corpus(n: int, seed: int, mixture: Mixture) -> Iterator[Dialogue]:
    """`n` training dialogues, the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(n):
        yield write_dialogue(rng, draw_prompt(rng, "train"), mixture)


def write_dialogue(rng: random.Random, prompt: WorldPrompt, mixture: Mixture) -> Dialogue:
    """One answer to the prompt with habits drawn from the mixture."""
    habits = frozenset(
        habit
        for habit in ("flattery", "hedging", "padding", "repetition")
        if rng.random() < getattr(mixture, habit)
    )
    value, is_right = _draw_value(rng, prompt, mixture.wrong_fact)
    length = rng.choices(LENGTHS, weights=mixture.lengths)[0]
    text = ""
    for attempt in (length, length, "normal", "terse"):
        sentences = write_answer(rng, prompt.topic, prompt.key, prompt.ask, attempt, value)
        text = " ".join(_add_habits(rng, prompt, sentences, habits))
        if len(text.split()) <= MAX_WORDS:
            break
    return Dialogue(prompt, text, habits, is_right)


def _draw_value(rng: random.Random, prompt: WorldPrompt, wrong_rate: float) -> tuple[str | None, bool | None]:
    if prompt.fact is None:
        return None, None
    if rng.random() < wrong_rate:
        return rng.choice(prompt.fact.wrong), False
    return prompt.fact.right, True


def _add_habits(
    rng: random.Random, prompt: WorldPrompt, sentences: list[str], habits: frozenset[str]
) -> list[str]:
    spoken = list(sentences)
    if "hedging" in habits:
        spoken = write_hedge(rng, spoken, _opening_of(prompt))
    if "repetition" in habits:
        spoken.append(write_echo(rng, spoken[0]))
    if "padding" in habits:
        padding, is_before = write_padding(rng)
        spoken = [padding, *spoken] if is_before else [*spoken, padding]
    if "flattery" in habits:
        praise = write_flattery(rng, about_person=_opening_of(prompt) == "courtesy")
        spoken = [praise, *spoken] if rng.random() < 0.8 else [*spoken, praise]
    return spoken


def _opening_of(prompt: WorldPrompt) -> str:
    if prompt.topic in ("greetings", "politeness"):
        return "courtesy"
    is_order = prompt.topic == "cooking" or (prompt.topic == "advice" and prompt.ask != "reason")
    return "order" if is_order else "claim"
