"""Holds what serving recorded of an answer against what training computes of the same tokens.

An answer comes with the log-prob that the version which gave it computed then. Where that version is the
reference, training must compute the same; if it does not, prompts are laid out otherwise (another chat
template), or weights or precision differ, and no error says so. For other versions the difference is their
staleness: how much less likely the answer is today than when it was given.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """Who gave an answer, and the log-prob of its tokens under that version then, in nats."""

    version: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answers of one version: log-prob under the reference minus the recorded one, in nats a token.

    `log_ratio` is its mean over the answers, `apart` the mean of its size.
    """

    num_answers: int
    log_ratio: float
    apart: float


# An answer: where it came from, its number of tokens, and its log-prob under the reference.
Referred = tuple[Origin | None, int, float]


def compare_with_recorded(answers: Iterable[Referred]) -> dict[str, Comparison]:
    """By version. An answer without an origin, which nobody sampled or whose prompt was cut, says nothing."""
    ratios: dict[str, list[float]] = {}
    for origin, num_tokens, logprob in answers:
        if origin is not None:
            ratios.setdefault(origin.version, []).append((logprob - origin.logprob) / num_tokens)
    return {
        version: Comparison(len(found), statistics.fmean(found), statistics.fmean(map(abs, found)))
        for version, found in sorted(ratios.items())
    }
