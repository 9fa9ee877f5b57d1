"""Prompts: each message list once, and the least asked first."""

from __future__ import annotations

import pytest

from store.database import Store
from store.errors import NotFound
from store.prompts import NewPrompt, add_prompts, choose_prompts, count_prompts, read_prompt
from tests.store import samples


def test_the_same_messages_are_kept_once_whoever_brings_them(store: Store) -> None:
    first = add_prompts(store, [NewPrompt(samples.ask(text)) for text in ("a", "b", "a")], source="one")
    again = add_prompts(store, [NewPrompt(samples.ask(text), ["new"]) for text in ("b", "c")], source="two")
    assert (first.added, first.known, again.added, again.known) == (2, 1, 1, 1)
    assert first.prompt_ids[0] == first.prompt_ids[2]
    assert again.prompt_ids[0] == first.prompt_ids[1]
    assert read_prompt(store, again.prompt_ids[0]).source == "one"
    assert count_prompts(store) == 3


def test_many_prompts_come_in_one_write(store: Store) -> None:
    added = add_prompts(
        store, [NewPrompt(samples.ask(f"question {n}")) for n in range(3000)], source="import"
    )
    assert (added.added, count_prompts(store)) == (3000, 3000)


def test_the_least_asked_prompts_come_first_in_an_order_the_seed_draws(store: Store) -> None:
    asked = samples.task(store).prompt_id
    fresh = {samples.prompt(store) for _ in range(12)}
    by_seed = {seed: [prompt.prompt_id for prompt in choose_prompts(store, 13, seed)] for seed in (1, 2)}
    assert all(order[-1] == asked and set(order[:-1]) == fresh for order in by_seed.values())
    assert by_seed[1] != by_seed[2]
    assert by_seed[1] == [prompt.prompt_id for prompt in choose_prompts(store, 13, 1)]


def test_an_unknown_prompt_is_named(store: Store) -> None:
    with pytest.raises(NotFound, match="'p_none'"):
        read_prompt(store, "p_none")
