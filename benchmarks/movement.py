"""Where a training moved the policy: held-out answers' log-probs, and bad habits in what it says itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from benchmarks.metrics import gain_error, score_error
from store.records import PairRow
from trainer.preferences import prompt_ids
from trainer.probes import Exchange, Policies, Sample
from trainer.qlora import LoadedBase
from trainer.starter.habits import HABITS, detect_habits

NUM_ERRORS = 2.0
MOST_UNLEARNED = 3.0  # nats a token: where a round's guard calls the chosen answers unlearned


@dataclass(frozen=True, slots=True)
class Movement:
    """What a method did. Accuracy counts a tie as half; margin and changes are nats an answer."""

    first_loss: float | None
    last_loss: float | None
    accuracy: float
    accuracy_error: float
    margin: float
    chosen_change: float
    rejected_change: float
    habits: dict[str, float]
    any_habit: float
    is_right_way: bool


def score_change(policies: Policies, base: LoadedBase, rows: Sequence[PairRow], side: str) -> list[float]:
    """How much likelier each held-out answer became: nats an answer."""
    exchanges = [Exchange(prompt_ids(row.messages, base.tokenizer), getattr(row, side)) for row in rows]
    scores = zip(policies.score("trained", exchanges), policies.score("base", exchanges), strict=True)
    return [after.logp - before.logp for after, before in scores]


def habit_shares(answers: Sequence[Sample]) -> dict[str, float]:
    """The share of answers with each habit, and under "any" with at least one."""
    shown = [detect_habits(answer.text) for answer in answers]
    shares = {habit: mean(habit in found for found in shown) for habit in HABITS}
    return shares | {"any": mean(has_habit(answers))}


def has_habit(answers: Sequence[Sample]) -> list[float]:
    """1 for each answer that shows a bad habit, else 0."""
    return [float(bool(detect_habits(answer.text))) for answer in answers]


def judge_movement(
    losses: Sequence[float],
    chosen: Sequence[float],
    rejected: Sequence[float],
    answers: Sequence[Sample],
    base_answers: Sequence[Sample],
    chosen_tokens: float = 1.0,
) -> Movement:
    """From the changes of held-out answers' log-probs, and from answers to the same prompts as the base's.

    `chosen_tokens` is the mean length of the chosen answers.
    """
    gaps = [c - r for c, r in zip(chosen, rejected, strict=True)]
    hits = [0.5 if gap == 0 else float(gap > 0) for gap in gaps]
    error = score_error(hits)
    after, before = has_habit(answers), has_habit(base_answers)
    fall, fall_error = mean(before) - mean(after), gain_error(after, before)
    shares = habit_shares(answers)
    return Movement(
        first_loss=losses[0] if losses else None,
        last_loss=mean(losses[-5:]) if losses else None,
        accuracy=mean(hits),
        accuracy_error=error,
        margin=mean(gaps),
        chosen_change=mean(chosen),
        rejected_change=mean(rejected),
        habits={habit: shares[habit] for habit in HABITS},
        any_habit=shares["any"],
        is_right_way=mean(hits) - 0.5 > NUM_ERRORS * error
        and fall > NUM_ERRORS * fall_error
        and mean(chosen) > -MOST_UNLEARNED * chosen_tokens,
    )
