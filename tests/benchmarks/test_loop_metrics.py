"""The numbers of the loop benchmark, on rows made by hand, and how they are printed and judged."""

from __future__ import annotations

import dataclasses
import json
from math import sqrt

import pytest

from benchmarks.checks import check_pairs, check_thumbs, describe_guide
from benchmarks.metrics import (
    Metrics,
    RoundRecord,
    Row,
    choose_best,
    gain_error,
    measure,
    score_error,
    standard_error,
)
from benchmarks.report import Column, format_table
from benchmarks.taste import TASTES, Reading
from store.records import Message

DIRECT = TASTES["direct"]
CAPITAL = (Message(role="user", content="What is the capital of France?"),)
HELLO = (Message(role="user", content="Hello!"),)
OPPONENT = Reading(is_finished=True, habits=frozenset({"flattery"}), is_fact_right=None, num_words=6)
ROWS = (
    Row(CAPITAL, "The capital is Paris.", -2.0, 5, "stop"),
    Row(CAPITAL, "What a clever question! The capital is Rome.", -6.0, 11, "stop"),
    Row(HELLO, "What a clever thing to ask!", -4.0, 7, "stop"),
    Row(HELLO, "Hello and", -0.5, 2, "length"),
)


def some_metrics(win_rate: float = 0.9, entropy: float = 0.7, habits: float = 0.0) -> Metrics:
    wins = round(win_rate * 100)
    return dataclasses.replace(
        measure(ROWS, [OPPONENT] * 4, DIRECT),
        habits=dict.fromkeys(("flattery", "hedging", "padding", "repetition"), habits),
        fact_accuracy=0.8,
        entropy=entropy,
        win_rate=win_rate,
        decided_win_rate=win_rate,
        scores=(1.0,) * wins + (0.0,) * (100 - wins),
    )


def a_round(version: str, metrics: Metrics | None, **notes: object) -> RoundRecord:
    return RoundRecord(version, metrics is not None, metrics, 100, {"collect": 1.234}, notes)


def test_rates_length_and_entropy_of_four_answers() -> None:
    found = measure(ROWS, [OPPONENT] * 4, DIRECT)
    assert found.habits == {"flattery": 0.5, "hedging": 0.0, "padding": 0.0, "repetition": 0.0}
    assert (found.fact_accuracy, found.num_facts) == (0.5, 2)
    assert found.mean_length == (4 + 8 + 6 + 2) / 4
    assert found.entropy == pytest.approx(12.5 / 25)  # nats over tokens, not a mean of means
    assert (found.num_distinct, found.unfinished) == (4, 0.25)


def test_a_tie_is_half_a_win_and_no_decided_comparison() -> None:
    found = measure(ROWS, [OPPONENT] * 4, DIRECT)
    assert found.scores == (1.0, 0.0, 0.5, 0.0)
    assert found.win_rate == pytest.approx(1.5 / 4)
    assert found.decided_win_rate == pytest.approx(1 / 3)
    assert found.num_decided == 3


def test_the_best_of_several_is_chosen_prompt_by_prompt() -> None:
    samples = [[ROWS[1], ROWS[2]], [ROWS[0], ROWS[3]]]
    assert choose_best(samples, DIRECT) == [ROWS[0], ROWS[2]]


def test_standard_errors_are_binomial_and_shrink_with_pairing() -> None:
    assert standard_error(0.5, 100) == pytest.approx(0.05)
    assert standard_error(0.0, 0) == 0.0
    scores = (1.0, 0.0) * 50
    assert score_error(scores) == pytest.approx(sqrt(0.25 / 100))
    assert gain_error(scores, scores) == 0.0


def test_the_table_lines_up_and_shows_a_dash_for_what_crashed() -> None:
    lines = format_table([Column("base", some_metrics(), 0), Column("guide-3", None, 300)]).splitlines()
    assert lines[0].split() == ["base", "guide-3"]
    flattery = next(line for line in lines if line.startswith("flattery"))
    assert flattery.split() == ["flattery", "0.000", "±0.000", "-"]
    assert lines[-1].split() == ["labels", "used", "0", "300"]
    assert len({len(line) for line in lines}) == 1


def test_a_round_in_the_json_line_has_the_promised_keys() -> None:
    found = json.loads(json.dumps(a_round("v1", some_metrics(), ties=3).as_json()))
    promised = (
        "version promoted win_rate decided_win_rate habits fact_accuracy entropy mean_length labels seconds"
    )
    assert set(promised.split()) <= set(found)
    assert "scores" not in found
    assert (found["seconds"], found["ties"]) == ({"collect": 1.23}, 3)


def test_a_crashed_round_in_the_json_line_says_why() -> None:
    found = a_round("guide-3", None, error="ValueError: no").as_json()
    assert found["error"] == "ValueError: no"
    assert "win_rate" not in found


def test_every_promise_is_judged_on_the_last_round() -> None:
    base = some_metrics(win_rate=0.5, habits=0.2)
    kept = check_pairs(base, [a_round("v1", some_metrics(0.7)), a_round("v2", some_metrics(0.9))])
    assert all(check.holds for check in kept)
    broken = check_pairs(base, [a_round("v1", some_metrics(0.6, entropy=2.0, habits=0.1))])
    assert [check.says.split()[0] for check in broken if not check.holds] == [
        *("flattery", "hedging", "padding", "repetition", "win", "win", "entropy")
    ]


def test_a_promoted_version_that_is_clearly_worse_breaks_a_promise() -> None:
    rounds = [a_round("v1", some_metrics(0.95)), a_round("v2", some_metrics(0.82))]
    broken = [check for check in check_pairs(some_metrics(0.5), rounds) if not check.holds]
    assert [check.says.split(":")[0] for check in broken if " against " in check.says] == ["v2 against v1"]


def test_ratings_must_lift_the_win_rate_above_the_noise() -> None:
    assert not check_thumbs([a_round("v1", some_metrics(0.55))])[0].holds
    assert check_thumbs([a_round("v1", some_metrics(0.7))])[0].holds


def test_the_guides_recipe_is_described_by_its_first_failure() -> None:
    base, good = some_metrics(0.5), a_round("guide-1", some_metrics(0.8))
    crashed = a_round("guide-2", None, error="ValueError: no")
    assert describe_guide(base, [good, crashed]) == "crashed in round 2: ValueError: no"
    assert describe_guide(base, [good, a_round("g", some_metrics(0.8, entropy=2.9))]).startswith(
        "degenerated"
    )
    assert describe_guide(base, [good, a_round("g", some_metrics(0.5))]).startswith("fell back in round 2")
    assert describe_guide(base, [good]) == "held for 1 rounds"
