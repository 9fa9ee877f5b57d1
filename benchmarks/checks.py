"""What the loop promises after its last round, promise by promise, and where the guide's recipe failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.metrics import Metrics, RoundRecord, gain_error, score_error
from trainer.starter.habits import HABITS

MAX_HABIT_SHARE = 0.25
MIN_WIN_RATE, MIN_DECIDED_WIN_RATE = 0.80, 0.85
MAX_FACT_LOSS = 0.02
MIN_ENTROPY_RATIO, MAX_ENTROPY_RATIO = 0.5, 1.5
NUM_ERRORS = 2.0  # a difference of less than two standard errors is measurement noise


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, in words with its numbers, and whether it was kept."""

    says: str
    holds: bool


def check_pairs(base: Metrics, rounds: Sequence[RoundRecord]) -> list[Check]:
    """What five rounds of judgements promise; judged on the last round's live policy."""
    measured = [record.metrics for record in rounds if record.metrics]
    if not measured:
        return [Check("at least one round was measured", False)]
    last = measured[-1]
    return [
        *(_check_habit(habit, base, last) for habit in HABITS),
        Check(
            f"win rate {last.win_rate:.3f} >= {MIN_WIN_RATE} with ties half", last.win_rate >= MIN_WIN_RATE
        ),
        Check(
            f"win rate {last.decided_win_rate:.3f} >= {MIN_DECIDED_WIN_RATE} of {last.num_decided} decided",
            last.decided_win_rate >= MIN_DECIDED_WIN_RATE,
        ),
        _check_facts(base, last),
        _check_entropy(base, last),
        *_check_steps(rounds),
    ]


def check_thumbs(rounds: Sequence[RoundRecord]) -> list[Check]:
    """What ratings alone promise: a win rate above one half by more than the noise."""
    measured = [record.metrics for record in rounds if record.metrics]
    if not measured:
        return [Check("at least one round was measured", False)]
    rate, noise = measured[-1].win_rate, NUM_ERRORS * score_error(measured[-1].scores)
    return [
        Check(f"win rate {rate:.3f} is above 0.5 by more than the noise of {noise:.3f}", rate > 0.5 + noise)
    ]


def describe_guide(base: Metrics, rounds: Sequence[RoundRecord]) -> str:
    """Where the guide's recipe failed, if it did: entropy out of range, the win rate falling, or a crash."""
    before: Metrics | None = None
    for place, record in enumerate(rounds, start=1):
        if record.metrics is None:
            return f"crashed in round {place}: {record.notes.get('error')}"
        now = record.metrics
        if not MIN_ENTROPY_RATIO <= now.entropy / base.entropy <= MAX_ENTROPY_RATIO:
            return (
                f"degenerated in round {place}: entropy {base.entropy:.2f} -> {now.entropy:.2f} nats a token"
            )
        if before and before.win_rate - now.win_rate > NUM_ERRORS * gain_error(now.scores, before.scores):
            return f"fell back in round {place}: win rate {before.win_rate:.3f} -> {now.win_rate:.3f}"
        before = now
    return f"held for {len(rounds)} rounds"


def _check_habit(habit: str, base: Metrics, last: Metrics) -> Check:
    limit = MAX_HABIT_SHARE * base.habits[habit]
    return Check(
        f"{habit} {last.habits[habit]:.3f} <= a quarter of the base's {base.habits[habit]:.3f}",
        last.habits[habit] <= limit,
    )


def _check_facts(base: Metrics, last: Metrics) -> Check:
    return Check(
        f"fact accuracy {last.fact_accuracy:.3f} >= the base's {base.fact_accuracy:.3f} less {MAX_FACT_LOSS}",
        last.fact_accuracy >= base.fact_accuracy - MAX_FACT_LOSS,
    )


def _check_entropy(base: Metrics, last: Metrics) -> Check:
    ratio, low, high = last.entropy / base.entropy, MIN_ENTROPY_RATIO, MAX_ENTROPY_RATIO
    return Check(
        f"entropy {last.entropy:.3f} is {ratio:.2f} times the base's, within {low}..{high}",
        low <= ratio <= high,
    )


def _check_steps(rounds: Sequence[RoundRecord]) -> list[Check]:
    promoted = [(record.version, record.metrics) for record in rounds if record.promoted and record.metrics]
    return [
        _check_step(before, earlier, after, later) for (before, earlier), (after, later) in pairwise(promoted)
    ]


def _check_step(before: str, earlier: Metrics, after: str, later: Metrics) -> Check:
    noise = NUM_ERRORS * gain_error(later.scores, earlier.scores)
    gain = later.win_rate - earlier.win_rate
    return Check(
        f"{after} against {before}: win rate {gain:+.3f}, not below -{noise:.3f} (noise)", gain >= -noise
    )
