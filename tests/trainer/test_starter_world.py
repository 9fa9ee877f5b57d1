"""The world's prompts: the same for a seed, distinct, and held out from every training text."""

import random

import pytest

from trainer.starter import world
from trainer.starter.dialogue import Mixture, write_corpus
from trainer.starter.habits import is_fact_right
from trainer.starter.lore import CAPITALS
from trainer.starter.world import KNOWN_SUMS, NEW_SUMS, draw_prompt, heldout_prompts, train_prompts


def test_the_same_seed_draws_the_same_prompts() -> None:
    assert heldout_prompts(200, seed=3) == heldout_prompts(200, seed=3)
    assert heldout_prompts(200, seed=3) != heldout_prompts(200, seed=4)


def test_there_are_thousands_of_distinct_prompts_in_each_split() -> None:
    assert len({prompt.turns for prompt in train_prompts(3000, seed=1)}) == 3000
    assert len({prompt.turns for prompt in heldout_prompts(2000, seed=1)}) == 2000


def test_no_training_text_contains_a_held_out_prompt() -> None:
    corpus = write_corpus(10_000, seed=7, mixture=Mixture())
    seen = "\n".join(text for dialogue in corpus for text in (*dialogue.prompt.turns, dialogue.answer))
    assert [prompt.question for prompt in heldout_prompts(1500, seed=11) if prompt.question in seen] == []


def test_held_out_sums_are_a_tenth_or_so_and_never_drawn_for_training() -> None:
    rng = random.Random(2)
    drawn = {
        prompt.key for prompt in (draw_prompt(rng, "train") for _ in range(5000)) if prompt.topic == "sums"
    }
    assert drawn.isdisjoint(NEW_SUMS)
    assert 0.05 < len(NEW_SUMS) / (len(NEW_SUMS) + len(KNOWN_SUMS)) < 0.2


def test_every_topic_and_every_follow_up_is_asked_in_both_splits() -> None:
    train = {(prompt.topic, prompt.ask) for prompt in train_prompts(2500, seed=5)}
    heldout = {(prompt.topic, prompt.ask) for prompt in heldout_prompts(1500, seed=5)}
    assert train == heldout
    assert {topic for topic, _ in train} == {
        "capitals", "sums", "advice", "cooking", "why", "unknowable", "greetings", "politeness",
    }  # fmt: skip


def test_messages_alternate_and_end_with_the_user() -> None:
    for prompt in heldout_prompts(300, seed=8):
        roles = [message["role"] for message in prompt.messages]
        assert roles in (["user"], ["user", "assistant", "user"])
        assert ("follow-up" in prompt.tags) == (len(roles) == 3)


def test_a_country_has_one_capital_that_no_other_shares() -> None:
    cities = [city for city, _ in CAPITALS.values()]
    assert len(set(cities)) == len(cities)
    assert not set(cities) & set(CAPITALS)


def test_a_sum_is_right_when_every_sentence_arrives_at_it() -> None:
    prompt = next(p for p in train_prompts(500, seed=1) if p.topic == "sums" and p.ask == "question")
    assert prompt.fact is not None
    right, wrong = prompt.fact.right, prompt.fact.wrong[0]
    assert is_fact_right(prompt.fact, f"{prompt.key} is {right}.") is True
    assert is_fact_right(prompt.fact, f"{prompt.key} is {right}. Again, it is {wrong}.") is False
    assert is_fact_right(prompt.fact, "I cannot tell.") is False


def test_a_world_that_has_run_dry_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "_GIVE_UP_AFTER", 1)
    with pytest.raises(ValueError, match=r"ran dry at .* heldout prompts, 3000 were asked"):
        heldout_prompts(3000, seed=0)
