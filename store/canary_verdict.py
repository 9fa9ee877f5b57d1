"""Is the candidate worse? Bounds on two up-rates and their difference that hold at every look. Pure.

The up-rate p of a version that has s thumbs up of n is tested with the mixture martingale of a binomial under
a uniform prior (Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021, "Time-uniform, nonparametric,
nonasymptotic confidence sequences"):

    M(p) = B(1 + s, 1 + n - s) / (p^s (1 - p)^(n - s)),    B the beta function.

At the true p its expectation stays 1 however many ratings have come, so by Ville's inequality it ever reaches
1 / alpha with chance alpha at most: {p: M(p) < 1 / alpha} covers p at all n at once. For two sides the
product M_live(p) M_candidate(q) is such a martingale too, in whatever order the ratings come. The bounds of
p - q are its extremes over {(p, q): M_live(p) M_candidate(q) < 1 / alpha}: one alpha for both, and whoever
looks after every rating spends nothing more.

What it needs: given what came before, a thumb on a side is up with that side's one rate. Whoever gives a
hundred thumbs in one mood makes it surer than it should be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from store.canary_rows import Side, Sides
from store.canary_settings import CanarySettings

_STEPS = 30  # halvings, to 1e-9: far below what a page shows
_EDGE = 1e-12


@dataclass(frozen=True, slots=True)
class Interval:
    """From `lower` to `upper`, both possible."""

    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known so far: both up-rates, and by how much live's is higher than the candidate's."""

    candidate: Interval
    live: Interval
    worse_by: Interval
    decision: Literal["worse", "better", "open"]
    has_enough: bool


def judge_sides(sides: Sides, settings: CanarySettings) -> Verdict:
    """`worse` once live's up-rate is surely higher by more than the margin, `better` once it is surely lower.

    Both only with `min_ratings` thumbs on both sides.
    """
    gap = bound_difference(sides.live, sides.candidate, settings.confidence)
    has_enough = min(sides.live.ratings, sides.candidate.ratings) >= settings.min_ratings
    decision: Literal["worse", "better", "open"] = "open"
    if is_worse(sides, settings):
        decision = "worse"
    elif has_enough and gap.upper < 0:
        decision = "better"
    return Verdict(
        candidate=bound_rate(sides.candidate, settings.confidence),
        live=bound_rate(sides.live, settings.confidence),
        worse_by=gap,
        decision=decision,
        has_enough=has_enough,
    )


def is_worse(sides: Sides, settings: CanarySettings) -> bool:
    """Whether the candidate is to be withdrawn: the lower bound is above the margin, on enough ratings.

    The same as comparing `worse_by.lower`, at a sixtieth of the price.
    """
    live, candidate = sides.live, sides.candidate
    if min(live.ratings, candidate.ratings) < settings.min_ratings:
        return False
    if live.up / live.ratings - candidate.up / candidate.ratings <= settings.margin:
        return False
    return _least_log_martingale(live, candidate, settings.margin) >= -math.log1p(-settings.confidence)


def explain_gap(worse_by: Interval) -> str:
    """The bounds in words, in percentage points of thumbs up."""
    low, high = worse_by.lower * 100, worse_by.upper * 100
    if low > 0:
        return f"the candidate is between {low:.1f} and {high:.1f} points worse"
    if high < 0:
        return f"the candidate is between {-high:.1f} and {-low:.1f} points better"
    return f"the candidate is between {-low:.1f} points better and {high:.1f} points worse"


def bound_rate(side: Side, confidence: float) -> Interval:
    """The up-rates that are possible for one side, at every look; 0 to 1 without ratings."""
    limit = -math.log1p(-confidence)
    seen = side.up / side.ratings if side.ratings else 0.5

    def is_possible(rate: float) -> bool:
        return _log_martingale(side, rate) < limit

    return Interval(_reach(seen, 0.0, is_possible), _reach(seen, 1.0, is_possible))


def bound_difference(first: Side, second: Side, confidence: float) -> Interval:
    """The differences (first's up-rate minus second's) that are possible, at every look."""
    limit = -math.log1p(-confidence)
    seen = (first.up_rate or 0.0) - (second.up_rate or 0.0) if first.ratings and second.ratings else 0.0

    def is_possible(gap: float) -> bool:
        return _least_log_martingale(first, second, gap) < limit

    return Interval(_reach(seen, -1.0, is_possible), _reach(seen, 1.0, is_possible))


def _log_martingale(side: Side, rate: float) -> float:
    """log M(rate); infinite where the rate cannot have given these thumbs."""
    mixed = math.lgamma(1 + side.up) + math.lgamma(1 + side.down) - math.lgamma(2 + side.ratings)
    return mixed - _times_log(side.up, rate) - _times_log(side.down, 1 - rate)


def _times_log(count: int, rate: float) -> float:
    if not count:
        return 0.0
    return count * math.log(rate) if rate > 0 else -math.inf


def _least_log_martingale(first: Side, second: Side, gap: float) -> float:
    """The smallest log M_first(q + gap) + log M_second(q) over q; it is convex, so its slope has one zero."""
    low, high = max(0.0, -gap), min(1.0, 1.0 - gap)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _slope(first, middle + gap) + _slope(second, middle) > 0:
            high = middle
        else:
            low = middle
    rate = min(max((low + high) / 2, _EDGE), 1 - _EDGE)
    shifted = min(max(rate + gap, _EDGE), 1 - _EDGE)
    return _log_martingale(first, shifted) + _log_martingale(second, rate)


def _slope(side: Side, rate: float) -> float:
    """The derivative of log M by the rate."""
    return side.down / max(1 - rate, _EDGE) - side.up / max(rate, _EDGE)


def _reach(seen: float, end: float, is_possible: Callable[[float], bool]) -> float:
    """The last possible value from what was seen to the end of the scale; what is possible has no gaps."""
    if is_possible(end):
        return end
    inside, outside = seen, end
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if is_possible(middle):
            inside = middle
        else:
            outside = middle
    return outside
