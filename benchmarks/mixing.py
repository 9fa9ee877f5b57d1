"""Whose answer is it? The version it names must find it as likely as was told with it, and no other version.

An answer that two versions wrote together has a log-prob under neither of them that is the one told.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.engine import Engine
    from store.records import Message

TOLERANCE = 2e-4  # nats a token, between the sum told with an answer and the one computed afterwards


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as its reader saw it; moments by the monotonic clock."""

    messages: Sequence[Message]
    versions: frozenset[str]
    token_ids: tuple[int, ...]
    logprob_sum: float
    pieces_at: tuple[float, ...]

    @property
    def question(self) -> str:
        return json.dumps(self.messages)


class Scores:
    """How likely each answer is under each loaded version, in nats; equal answers are scored once."""

    def __init__(self, engine: Engine, answers: Sequence[Answer]) -> None:
        texts = {answer.question: answer.messages for answer in answers}
        given: dict[str, set[tuple[int, ...]]] = {question: set() for question in texts}
        for answer in answers:
            given[answer.question].add(answer.token_ids)
        self.versions = engine.versions()
        self._sums: dict[tuple[str, str, tuple[int, ...]], float] = {}
        for version, (question, messages) in itertools.product(self.versions, texts.items()):
            rows = sorted(given[question])
            for token_ids, logprob_sum in zip(rows, engine.score(version, messages, rows), strict=True):
                self._sums[version, question, token_ids] = logprob_sum

    def error(self, version: str, answer: Answer) -> float:
        """Nats a token between what was told with the answer and what this version says."""
        logprob_sum = self._sums[version, answer.question, answer.token_ids]
        return abs(logprob_sum - answer.logprob_sum) / len(answer.token_ids)


def compare(answer: Answer, scores: Scores) -> str:
    """ "own": as likely as told under the version it names and no other; "alike": under others too; else
    "mixed"."""
    fits = {version for version in scores.versions if scores.error(version, answer) <= TOLERANCE}
    if len(answer.versions) != 1 or not answer.versions <= fits:
        return "mixed"
    return "own" if len(fits) == 1 else "alike"
