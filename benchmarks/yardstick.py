"""What every version is held against: held-out questions and the base's own answers to them.

Each version answers the same questions with the same seeds. The opponents, the base's answers that all of
them are compared with, are drawn with other seeds, so that no win or tie comes from shared luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import cast

from benchmarks.annotators import Question, sample_answers
from benchmarks.client import HeedClient
from benchmarks.metrics import Metrics, choose_best, measure
from benchmarks.settings import LoopSettings
from benchmarks.taste import TASTES, Reading
from store.records import Message
from trainer.starter.world import WorldPrompt, heldout_prompts

BEST_OF = 8


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What every version is held against: held-out questions, answers of the base, both ends of the scale.

    The entropy of `best_of_8` is that of the answers chosen, so it lies below the entropy of any policy.
    """

    questions: list[Question]
    opponents: list[Reading]
    base: Metrics
    best_of_8: Metrics


def draw_questions(prompts: Sequence[WorldPrompt], run_seed: int, draw: int) -> list[Question]:
    """The prompts as questions; a seed of its own for every run seed, prompt and draw."""
    return [
        Question(
            tuple(cast(Message, message) for message in prompt.messages),
            _mix(run_seed, place, draw),
        )
        for place, prompt in enumerate(prompts)
    ]


def _mix(run_seed: int, place: int, draw: int) -> int:
    """A 31-bit seed with nothing in common with its neighbours.

    With seeds 0, 1000, 2000 and so on flattery once came out at 0.11 of 300 answers, with others at 0.19.
    Whether that was the spacing or luck was not settled; mixed seeds leave no doubt.
    """
    return int.from_bytes(sha256(f"{run_seed}/{place}/{draw}".encode()).digest()[:4]) >> 1


def measure_base(testers: Sequence[HeedClient], settings: LoopSettings) -> Yardstick:
    """Sample the base nine times a prompt: eight to choose the best from, and one as everybody's opponent.

    The base's own row is measured on all eight, since every promise is a share of it.
    """
    prompts = heldout_prompts(settings.eval_prompts, settings.seed)
    draws = [draw_questions(prompts, settings.seed, draw) for draw in range(BEST_OF + 1)]
    rows = sample_answers(
        testers, "base", [question for draw in draws for question in draw], settings.max_tokens
    )
    size, taste = len(prompts), TASTES[settings.taste]
    samples = [rows[start : start + size] for start in range(0, len(rows), size)]
    opponents = [row.read() for row in samples[BEST_OF]]
    return Yardstick(
        questions=draws[0],
        opponents=opponents,
        base=measure([row for draw in samples[:BEST_OF] for row in draw], opponents * BEST_OF, taste),
        best_of_8=measure(choose_best(samples[:BEST_OF], taste), opponents, taste),
    )


def measure_version(
    version: str, testers: Sequence[HeedClient], settings: LoopSettings, yardstick: Yardstick
) -> Metrics:
    """Measure one loaded version on the yardstick's questions."""
    rows = sample_answers(testers, version, yardstick.questions, settings.max_tokens)
    return measure(rows, yardstick.opponents, TASTES[settings.taste])
