"""What one policy's answers to the held-out prompts amount to, next to the base's answers to the same.

Rows in, numbers out: it knows neither where the rows came from (the service, the guide's recipe, the best of
eight) nor how the numbers are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from statistics import pstdev

from benchmarks.taste import Reading, Taste, read_answer
from store.records import Message
from trainer.starter.habits import HABITS


@dataclass(frozen=True, slots=True)
class Row:
    """One sampled answer; `logprob_sum` is in nats over its `num_tokens` tokens, the end token included."""

    messages: tuple[Message, ...]
    text: str
    logprob_sum: float
    num_tokens: int
    finish_reason: str

    def read(self) -> Reading:
        return read_answer(self.messages, self.text)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Rates over one answer per prompt. `mean_length` is in words, `entropy` in nats per token.

    `scores` holds 1, 0.5 or 0 for each prompt: won, tied or lost against the base. Entropy is the mean
    surprisal of the sampled tokens, which at temperature 1 estimates the policy's entropy without bias.
    """

    habits: dict[str, float]
    fact_accuracy: float
    num_facts: int
    mean_length: float
    entropy: float
    win_rate: float
    decided_win_rate: float
    num_decided: int
    num_distinct: int
    unfinished: float
    num_prompts: int
    scores: tuple[float, ...]

    def as_json(self) -> dict[str, object]:
        """Every number but the score of each single prompt."""
        return {name: value for name, value in asdict(self).items() if name != "scores"}


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round of either recipe, ours or the guide's.

    `version` is what is live after it, `labels` counts all labels so far, `metrics` is None after a crash.
    """

    version: str
    promoted: bool
    metrics: Metrics | None
    labels: int
    seconds: dict[str, float]
    notes: dict[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        numbers = self.metrics.as_json() if self.metrics else {}
        seconds = {stage: round(taken, 2) for stage, taken in self.seconds.items()}
        ours = {"version": self.version, "promoted": self.promoted, "labels": self.labels, "seconds": seconds}
        return ours | numbers | self.notes


def measure(rows: Sequence[Row], opponents: Sequence[Reading], taste: Taste) -> Metrics:
    """Measure `rows`, one a prompt, against `opponents`: another sample of the base in the same order."""
    readings = [row.read() for row in rows]
    facts = [reading.is_fact_right for reading in readings if reading.is_fact_right is not None]
    orders = [taste.compare(ours, base) for ours, base in zip(readings, opponents, strict=True)]
    decided = [order > 0 for order in orders if order != 0]
    return Metrics(
        habits={habit: _share([habit in reading.habits for reading in readings]) for habit in HABITS},
        fact_accuracy=_share(facts),
        num_facts=len(facts),
        mean_length=sum(reading.num_words for reading in readings) / len(rows),
        entropy=-sum(row.logprob_sum for row in rows) / max(1, sum(row.num_tokens for row in rows)),
        win_rate=sum((order + 1) / 2 for order in orders) / len(rows),
        decided_win_rate=_share(decided),
        num_decided=len(decided),
        num_distinct=len({row.text for row in rows}),
        unfinished=_share([row.finish_reason != "stop" for row in rows]),
        num_prompts=len(rows),
        scores=tuple((order + 1) / 2 for order in orders),
    )


def choose_best(samples: Sequence[Sequence[Row]], taste: Taste) -> list[Row]:
    """The best answer by the taste for each prompt; `samples` are several lists in the same order."""
    return [min(answers, key=lambda row: taste.key(row.read())) for answers in zip(*samples, strict=True)]


def standard_error(rate: float, count: int) -> float:
    """The binomial standard error of a rate over `count` independent trials; 0 without trials."""
    return sqrt(max(0.0, rate * (1.0 - rate)) / count) if count else 0.0


def score_error(scores: Sequence[float]) -> float:
    """The standard error of a mean of per-prompt scores; below the binomial one where there are ties."""
    return pstdev(scores) / sqrt(len(scores))


def gain_error(scores: Sequence[float], earlier: Sequence[float]) -> float:
    """The standard error of the difference of two win rates over the same prompts and the same opponents."""
    return score_error([now - before for now, before in zip(scores, earlier, strict=True)])


def _share(claims: Sequence[bool]) -> float:
    return sum(claims) / len(claims) if claims else 0.0
