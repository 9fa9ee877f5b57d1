"""The verdict on a canary: bounds that agree with a brute search and hold however often one looks."""

from __future__ import annotations

import math
import random

import pytest

from store.canary_rows import Side, Sides
from store.canary_settings import CanarySettings
from store.canary_verdict import Interval, bound_difference, bound_rate, explain_gap, is_worse, judge_sides

SETTINGS = CanarySettings()


def log_m(up: int, down: int, rate: float) -> float:
    mixed = math.lgamma(1 + up) + math.lgamma(1 + down) - math.lgamma(2 + up + down)
    return mixed - (up * math.log(rate) if up else 0) - (down * math.log(1 - rate) if down else 0)


@pytest.mark.parametrize(
    ("live", "candidate"), [((70, 30), (3, 9)), ((5, 0), (0, 4)), ((1, 1), (1, 0)), ((400, 170), (20, 20))]
)
def test_the_bounds_are_the_extremes_of_the_region_a_brute_search_finds(
    live: tuple[int, int], candidate: tuple[int, int]
) -> None:
    steps, limit = 400, math.log(1 / 0.05)
    grid = [(n + 0.5) / steps for n in range(steps)]
    inside = [p - q for p in grid for q in grid if log_m(*live, p) + log_m(*candidate, q) < limit]
    found = bound_difference(Side(0, *live), Side(0, *candidate), 0.95)
    assert found.lower == pytest.approx(min(inside), abs=2.1 / steps)
    assert found.upper == pytest.approx(max(inside), abs=2.1 / steps)


def test_the_quick_question_and_the_bound_agree() -> None:
    draw = random.Random(3)
    answers = set()
    for _ in range(300):
        live, candidate = (Side(0, draw.randrange(1, 60), draw.randrange(1, 60)) for _ in range(2))
        settings = CanarySettings(margin=draw.choice((0.0, 0.1)), min_ratings=2)
        is_above = bound_difference(live, candidate, settings.confidence).lower > settings.margin
        assert is_worse(Sides(candidate, live), settings) == is_above
        answers.add(is_above)
    assert answers == {True, False}


@pytest.mark.parametrize(
    ("lower", "upper", "says"),
    [
        (0.004, 0.31, "between 0.4 and 31.0 points worse"),
        (-0.2, -0.01, "between 1.0 and 20.0 points better"),
        (-0.2, 0.3, "between 20.0 points better and 30.0 points worse"),
    ],
)
def test_the_bounds_are_told_in_points(lower: float, upper: float, says: str) -> None:
    assert explain_gap(Interval(lower, upper)) == f"the candidate is {says}"


def test_without_ratings_everything_is_possible() -> None:
    gap, rate = bound_difference(Side(), Side(), 0.95), bound_rate(Side(), 0.95)
    assert (gap.lower, gap.upper, rate.lower, rate.upper) == (-1, 1, 0, 1)
    one_sided = bound_difference(Side(0, 1000, 0), Side(), 0.95)
    assert one_sided.upper == 1
    assert one_sided.lower < 0


def test_more_ratings_of_the_same_kind_narrow_the_bounds_around_what_was_seen() -> None:
    few, many = (bound_difference(Side(0, 7 * n, 3 * n), Side(0, 3 * n, 7 * n), 0.95) for n in (2, 50))
    assert few.lower < many.lower < 0.4 < many.upper < few.upper


def test_a_verdict_needs_enough_ratings_on_both_sides() -> None:
    sides = Sides(candidate=Side(9, 0, 9), live=Side(90, 90, 0))
    assert judge_sides(sides, SETTINGS).decision == "open"
    more = Sides(candidate=Side(10, 0, 10), live=Side(90, 90, 0))
    assert judge_sides(more, SETTINGS).decision == "worse"
    assert judge_sides(Sides(candidate=more.live, live=more.candidate), SETTINGS).decision == "better"


def test_a_margin_lets_a_slightly_worse_candidate_stay() -> None:
    sides = Sides(candidate=Side(400, 240, 160), live=Side(400, 320, 80))
    assert judge_sides(sides, SETTINGS).decision == "worse"
    assert judge_sides(sides, CanarySettings(margin=0.15)).decision == "open"


def test_equal_candidates_looked_at_after_every_rating_are_withdrawn_less_often_than_stated() -> None:
    """150 equal candidates, 300 looks each: a plain 95 % interval is left by a third of them."""
    draw = random.Random(7)
    num_withdrawn = num_fooled = 0
    for _ in range(150):
        counts = {True: [0, 0], False: [0, 0]}
        withdrawn = fooled = False
        for _ in range(300):
            counts[draw.random() < 0.5][draw.random() < 0.6] += 1
            (candidate_down, candidate_up), (live_down, live_up) = counts[True], counts[False]
            sides = Sides(Side(0, candidate_up, candidate_down), Side(0, live_up, live_down))
            if min(sides.candidate.ratings, sides.live.ratings) < 10:
                continue
            fooled = fooled or _plain_lower_bound(sides) > 0
            withdrawn = withdrawn or is_worse(sides, SETTINGS)
        num_withdrawn += withdrawn
        num_fooled += fooled
    assert num_withdrawn / 150 <= 0.05
    assert num_fooled / 150 > 0.1


def _plain_lower_bound(sides: Sides) -> float:
    """What a textbook says for one look: the difference minus 1.96 standard errors."""
    rates = [(side.up_rate or 0.0, side.ratings) for side in (sides.live, sides.candidate)]
    error = math.sqrt(sum(rate * (1 - rate) / count for rate, count in rates))
    return rates[0][0] - rates[1][0] - 1.96 * error


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"share": 1.0}, "share 1.0"),
        ({"confidence": 1.0}, "confidence 1.0"),
        ({"min_ratings": 0}, "min_ratings 0"),
        ({"margin": -0.1}, "margin -0.1"),
        ({"after_gate": 1.0}, "after_gate 1.0"),
    ],
)
def test_an_impossible_setting_is_named(changed: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CanarySettings(**changed)  # type: ignore[arg-type]
