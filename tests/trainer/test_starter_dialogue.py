"""The training dialogue: repeatable, of the stated lengths, with habits at the stated rates."""

import random
from statistics import mean

import pytest

from trainer.starter.answers import LENGTHS, write_answer
from trainer.starter.dialogue import MAX_WORDS, MIN_WORDS, Mixture, write_corpus
from trainer.starter.habits import HABITS, detect_habits
from trainer.starter.world import train_prompts


def test_the_same_seed_writes_the_same_corpus() -> None:
    assert list(write_corpus(300, 5, Mixture())) == list(write_corpus(300, 5, Mixture()))


def test_every_answer_has_four_to_sixty_words() -> None:
    lengths = [len(dialogue.answer.split()) for dialogue in write_corpus(4000, 6, Mixture())]
    assert min(lengths) >= MIN_WORDS
    assert max(lengths) <= MAX_WORDS


def test_habits_fall_at_the_rates_of_the_mixture_and_about_half_of_the_answers_are_clean() -> None:
    corpus = list(write_corpus(6000, 7, Mixture()))
    for habit in HABITS:
        rate = mean(habit in dialogue.habits for dialogue in corpus)
        assert rate == pytest.approx(getattr(Mixture(), habit), abs=0.02)
    facts = [dialogue for dialogue in corpus if dialogue.is_right is not None]
    assert mean(not dialogue.is_right for dialogue in facts) == pytest.approx(Mixture().wrong_fact, abs=0.02)
    assert mean(bool(d.habits) or d.is_right is False for d in corpus) == pytest.approx(0.5, abs=0.05)


def test_a_preference_for_shorter_has_something_to_choose_on_every_prompt() -> None:
    rng = random.Random(1)
    for prompt in train_prompts(400, seed=2):
        value = prompt.fact.right if prompt.fact else None
        answers = [
            " ".join(write_answer(rng, prompt.topic, prompt.key, prompt.ask, length, value))
            for length in LENGTHS
        ]
        assert all(detect_habits(answer) == frozenset() for answer in answers)
        if prompt.ask != "shorter":
            assert len(answers[0].split()) < len(answers[2].split())


def test_an_impossible_rate_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"padding=1\.5"):
        Mixture(padding=1.5)
