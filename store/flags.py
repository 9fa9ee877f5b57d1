"""What an admin should look at in a person's labels, as sentences. Flags suggest and change nothing.

Numbers in, "" or a sentence out. A habit is named when chance alone would show it in fewer than one of a
thousand people; what rests on few checked verdicts is not named at all.
"""

from __future__ import annotations

import math

import numpy as np

from store.agreement import Floats, Ints, Measure, even_chance, low_chance, measure_share
from store.effective import QualitySettings, Reliability

UNLIKELY = 0.001
MIN_CHECKED = 20  # fewer checked verdicts say little about who guesses
TOO_FAST_SHARE = 0.5
MIN_CONSISTENCY = 0.75


def flag_speed(speeds: Floats, settings: QualitySettings) -> str:
    """Whether half of the answers came faster than anyone reads; `speeds` are ms a word."""
    fast = int((speeds < settings.too_fast_ms_per_word).sum())
    if len(speeds) < MIN_CHECKED or fast < TOO_FAST_SHARE * len(speeds):
        return ""
    return f"too fast: {fast} of {len(speeds)} answers under {settings.too_fast_ms_per_word:g} ms a word"


def flag_sides(left: Measure) -> str:
    """Whether one side of the screen is chosen more often than chance allows; sides are drawn by lot."""
    if left.value is None:
        return ""
    count = round(left.value * left.n)
    if even_chance(count, left.n) >= UNLIKELY:
        return ""
    side, share = ("left", left.value) if left.value > 0.5 else ("right", 1 - left.value)
    return f"one side: {share:.0%} of {left.n} choices were the {side} one"


def flag_run(shown: Ints) -> str:
    """Whether the longest run of one answer, as shown, is longer than chance makes it.

    Of n fair flips a run of r comes with a chance of at most n / 2^(r - 1).
    """
    n = len(shown)
    if n < MIN_CHECKED:
        return ""
    changes = np.flatnonzero(np.diff(shown)) + 1
    longest = int(np.diff(np.concatenate([[0], changes, [n]])).max())
    if longest < 1 + math.log2(n / UNLIKELY):
        return ""
    return f"straight-lining: the same answer {longest} times in a row"


def flag_reliability(person_id: str, reliability: Reliability, settings: QualitySettings) -> str:
    """Whether checked choices are no better than guesses, or worse."""
    right, wrong = reliability.right.get(person_id, 0.0), reliability.wrong.get(person_id, 0.0)
    share = measure_share(right, right + wrong)
    if share.value is None or share.n < MIN_CHECKED or share.high is None:
        return ""
    if low_chance(round(right), round(right + wrong), 0.5) < UNLIKELY:
        return f"adversarial: right in {share.value:.0%} of {share.n} checked choices, fewer than by guessing"
    if share.high < (0.5 + settings.prior_accuracy) / 2:
        return f"like guessing: right in {share.value:.0%} of {share.n} checked choices"
    return ""


def flag_gold(gold: Measure, settings: QualitySettings) -> str:
    """Whether known answers are missed more often than a person at the prior would."""
    if gold.value is None or gold.n < settings.min_gold:
        return ""
    if low_chance(round(gold.value * gold.n), gold.n, settings.prior_accuracy) >= UNLIKELY:
        return ""
    return f"gold: right in {gold.value:.0%} of {gold.n}"


def flag_consistency(consistency: Measure) -> str:
    """Whether the same pair gets another answer too often; who guesses repeats half."""
    if consistency.value is None or consistency.high is None or consistency.high >= MIN_CONSISTENCY:
        return ""
    return f"inconsistent: repeats themselves in {consistency.value:.0%} of {consistency.n} repeats"
