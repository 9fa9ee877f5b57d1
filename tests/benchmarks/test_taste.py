"""A taste is a total preorder over readings, and a noisy annotator misses it as often as told to."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.facts import find_fact
from benchmarks.taste import TASTES, Reading, Taste, choose_side, choose_thumb, read_answer
from store.records import Message
from trainer.starter.habits import HABITS
from trainer.starter.world import heldout_prompts, train_prompts

READINGS = st.builds(
    Reading,
    is_finished=st.booleans(),
    habits=st.frozensets(st.sampled_from(HABITS)),
    is_fact_right=st.sampled_from([True, False, None]),
    num_words=st.integers(0, 80),
)
ANY_TASTE = st.sampled_from(list(TASTES.values()))
DIRECT = TASTES["direct"]
CAPITAL: list[Message] = [{"role": "user", "content": "What is the capital of France?"}]


def plain(num_words: int = 8, *habits: str, right: bool | None = True) -> Reading:
    return Reading(is_finished=True, habits=frozenset(habits), is_fact_right=right, num_words=num_words)


@given(ANY_TASTE, READINGS, READINGS)
def test_of_two_answers_one_is_better_or_they_tie_whichever_is_shown_first(
    taste: Taste, one: Reading, other: Reading
) -> None:
    assert taste.compare(one, other) == -taste.compare(other, one)
    assert taste.compare(one, one) == 0
    assert taste.strength(one, other) == taste.strength(other, one)


@given(ANY_TASTE, READINGS, READINGS, READINGS)
def test_a_taste_never_goes_round_in_circles(taste: Taste, a: Reading, b: Reading, c: Reading) -> None:
    if taste.compare(a, b) >= 0 and taste.compare(b, c) >= 0:
        assert taste.compare(a, c) >= 0


@given(ANY_TASTE, READINGS, READINGS)
def test_an_unfinished_answer_loses_to_any_finished_one(taste: Taste, one: Reading, other: Reading) -> None:
    if one.is_finished and not other.is_finished:
        assert taste.compare(one, other) == 1


def test_direct_looks_at_habits_then_at_facts_then_at_length() -> None:
    assert DIRECT.compare(plain(30, right=False), plain(5, "flattery")) == 1
    assert DIRECT.compare(plain(5, "flattery"), plain(5, "flattery", "padding")) == 1
    assert DIRECT.compare(plain(30), plain(5, right=False)) == 1
    assert DIRECT.compare(plain(5), plain(6)) == 1


def test_only_a_difference_beyond_length_is_much_better() -> None:
    assert DIRECT.strength(plain(5), plain(30)) == 1
    assert DIRECT.strength(plain(5), plain(5, "hedging")) == 2
    assert TASTES["brief"].strength(plain(5), plain(30, "hedging")) == 1


def test_the_facts_found_in_the_words_are_those_the_world_means() -> None:
    for prompt in (*train_prompts(1500, seed=3), *heldout_prompts(1500, seed=3)):
        found = find_fact([Message(role=m["role"], content=m["content"]) for m in prompt.messages])  # type: ignore[typeddict-item]
        expected = prompt.fact and (prompt.fact.kind, prompt.fact.right)
        assert (found and (found.kind, found.right)) == expected, prompt.turns


def test_an_annotator_sees_the_habit_and_the_wrong_fact() -> None:
    reading = read_answer(CAPITAL, "What a brilliant question! The capital of France is Rome.")
    assert reading == Reading(True, frozenset({"flattery"}), is_fact_right=False, num_words=10)
    assert read_answer(CAPITAL, "The capital of France is Par").is_finished is False
    assert read_answer(CAPITAL, "").is_finished is False


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_as_many_preferences_are_reversed_as_the_noise_says(noise: float) -> None:
    draw, trials = random.Random(7), 4000
    wrong = sum(choose_side(DIRECT, plain(5), plain(9), noise, draw).choice == "right" for _ in range(trials))
    assert wrong / trials == pytest.approx(noise, abs=0.025)
    wrong = sum(choose_thumb(DIRECT, plain(5), noise, draw) == -1 for _ in range(trials))
    assert wrong / trials == pytest.approx(noise, abs=0.025)


def test_noise_makes_no_preference_out_of_a_tie() -> None:
    draw = random.Random(1)
    assert {choose_side(DIRECT, plain(5), plain(5), 0.4, draw).choice for _ in range(50)} == {"tie"}


def test_a_thumb_goes_up_for_a_plain_answer_with_the_right_fact_only() -> None:
    draw = random.Random(1)
    readings = (plain(40), plain(5, right=None), plain(5, right=False), plain(5, "padding"))
    assert [choose_thumb(DIRECT, reading, 0.0, draw) for reading in readings] == [1, 1, -1, -1]
