"""The guide's recipe beside ours: it sees each pair once, and its crash is a result that ends nothing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from benchmarks.annotators import Question
from benchmarks.client import HeedClient
from benchmarks.guide_recipe import GuideRecipe
from benchmarks.guide_rounds import read_fresh_pairs, run_guide_round
from benchmarks.metrics import Row, measure
from benchmarks.settings import LoopSettings, parse_arguments, read_settings
from benchmarks.taste import TASTES
from benchmarks.yardstick import Yardstick
from store.records import Message
from tests.benchmarks.fakes import ScriptedService, serve

PROMPT = (Message(role="user", content="What is the capital of France?"),)
PAIR = {
    "prompt": list(PROMPT),
    "chosen": [{"role": "assistant", "content": "The capital is Paris."}],
    "rejected": [{"role": "assistant", "content": "What a clever question! The capital is Paris."}],
}


class ScriptedRecipe(GuideRecipe):
    """Trains on nothing, and crashes when told to."""

    crashes = False

    def train(self, _pairs: Any) -> dict[str, float]:
        self.num_rounds += 1
        if self.crashes:
            raise ValueError("Adapter with name 'ref' already exists.")
        return {"rewards/chosen": -0.5}

    def answer(self, _prompts: Any, _max_tokens: int) -> list[Row]:
        return [Row(PROMPT, "The capital is Paris.", -3.0, 6, "stop")]


@pytest.fixture
def settings() -> LoopSettings:
    return dataclasses.replace(read_settings(parse_arguments([])), eval_prompts=1)


@pytest.fixture
def yardstick() -> Yardstick:
    row = Row(PROMPT, "What a clever question! The capital is Paris.", -9.0, 11, "stop")
    metrics = measure([row], [row.read()], TASTES["direct"])
    return Yardstick([Question(PROMPT, 0)], [row.read()], metrics, metrics)


def test_each_pair_is_handed_over_once_and_ratings_never() -> None:
    service, known = ScriptedService(), set[str]()
    rating = {"prompt": list(PROMPT), "completion": PAIR["chosen"], "label": True}
    later = PAIR | {"prompt": [{"role": "user", "content": "Hello!"}]}
    service.will_say_lines(PAIR, rating)
    service.will_say_lines(later, PAIR, rating)
    with serve(service.answer) as url, HeedClient(url, "secret") as client:
        assert read_fresh_pairs(client, known) == [PAIR]
        assert read_fresh_pairs(client, known) == [later]


def test_its_round_is_measured_with_our_yardstick(settings: LoopSettings, yardstick: Yardstick) -> None:
    found = run_guide_round(ScriptedRecipe("base", 1e-4, 0), [PAIR], settings, yardstick, 100)
    assert found.metrics is not None
    assert (found.version, found.metrics.win_rate, found.metrics.entropy) == ("guide-1", 1.0, 0.5)
    assert found.notes == {"pairs": 1, "learning_rate": 1e-4, "rewards/chosen": -0.5}


def test_its_crash_is_written_down(settings: LoopSettings, yardstick: Yardstick) -> None:
    recipe = ScriptedRecipe("base", 1e-4, 0)
    recipe.crashes = True
    found = run_guide_round(recipe, [PAIR], settings, yardstick, 100).as_json()
    assert found["error"] == "ValueError: Adapter with name 'ref' already exists."
    assert found["promoted"] is False
    assert json.dumps(found)


@pytest.mark.slow
def test_plain_trl_trains_twice_and_crashes_in_its_third_round() -> None:
    recipe = GuideRecipe("serving/starter", 5e-4, 0)
    for _ in range(2):
        assert "rewards/chosen" in recipe.train([PAIR] * 16)
    row = recipe.answer([PROMPT], max_tokens=32)[0]
    assert row.logprob_sum < 0
    assert 0 < row.num_tokens <= 32
    with pytest.raises(ValueError, match="already exists"):
        recipe.train([PAIR] * 16)
