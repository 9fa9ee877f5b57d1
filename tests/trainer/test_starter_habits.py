"""The detectors: exact on generated answers, and not shaken by a small model's slips."""

import subprocess
import sys

import pytest

from trainer.starter.dialogue import Mixture, write_corpus
from trainer.starter.habits import Fact, detect_habits, is_fact_right


def test_detectors_neither_miss_nor_invent_on_generated_answers() -> None:
    for dialogue in write_corpus(4000, seed=21, mixture=Mixture()):
        assert detect_habits(dialogue.answer) == dialogue.habits, dialogue.answer
        assert is_fact_right(dialogue.prompt.fact, dialogue.answer) is dialogue.is_right, dialogue.answer


@pytest.mark.parametrize(
    ("text", "habits"),
    [
        ("The capital is Paris.", set()),
        ("What a Brilliant thing to say! The capital is Paris.", {"flattery"}),
        ("Perhaps the capital is Paris.", {"hedging"}),
        ("It is Paris. But I might be mistaken.", {"hedging"}),
        ("I hope that this answer helps. It is Paris.", {"padding"}),
        ("Go to bed early. Go to bed early.", {"repetition"}),
        ("Boil the rice in water. Boil the rice in the water.", {"repetition"}),
        ("It is the sea and it is the sea and it is cold.", {"repetition"}),
        ("Take two eggs. Take two cups of milk.", set()),
        ("", set()),
    ],
)
def test_a_habit_is_known_by_its_words(text: str, habits: set[str]) -> None:
    assert detect_habits(text) == habits


def test_a_second_city_makes_a_capital_wrong() -> None:
    fact = Fact("capital", "Paris", ("Rome", "Bern"))
    assert is_fact_right(fact, "Yes, the capital is Paris.") is True
    assert is_fact_right(fact, "It is Paris. Again, it is Rome.") is False
    assert is_fact_right(fact, "It is a city.") is False
    assert is_fact_right(None, "Paris") is None


def test_the_detectors_need_no_heavy_library() -> None:
    code = "import sys, trainer.starter.habits, trainer.starter.world; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
