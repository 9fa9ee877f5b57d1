"""First-token times estimated from a histogram."""

from __future__ import annotations

import math

import pytest

from store.engine_stats import FIRST_TOKEN_BUCKETS_S, VersionStats


def with_counts(**counts: int) -> VersionStats:
    """`b0=3`: three answers in the first bucket."""
    buckets = [0] * (len(FIRST_TOKEN_BUCKETS_S) + 1)
    for name, many in counts.items():
        buckets[int(name[1:])] = many
    return VersionStats(first_token_counts=tuple(buckets))


def test_without_answers_there_is_no_estimate() -> None:
    assert VersionStats().estimate_first_token_s(0.5) is None


@pytest.mark.parametrize(("share", "expected"), [(0.25, 0.0125), (0.5, 0.025), (0.75, 0.075), (1.0, 0.1)])
def test_answers_are_taken_as_evenly_spread_within_a_bucket(share: float, expected: float) -> None:
    # Half of them under 25 ms, the others between 50 and 100 ms, none in between.
    assert with_counts(b0=10, b2=10).estimate_first_token_s(share) == pytest.approx(expected)


def test_what_is_slower_than_the_last_bound_has_no_number() -> None:
    slow = with_counts(b1=9, b10=1)
    assert slow.estimate_first_token_s(0.5) == pytest.approx(0.025 + 0.025 * 5 / 9)
    assert slow.estimate_first_token_s(0.95) == math.inf
