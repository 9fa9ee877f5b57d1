"""Completions and conversations: what was sampled comes back whole, and only to whom it belongs."""

from __future__ import annotations

import dataclasses

import pytest

from store.completions import (
    new_conversation_id,
    read_completion,
    read_conversation,
    read_conversations,
    save_completion,
)
from store.database import Store
from store.errors import NotFound, StateConflict
from store.ratings import save_rating
from store.records import Message
from tests.store import samples


def test_a_completion_comes_back_as_it_was_sampled(store: Store) -> None:
    saved = save_completion(store, samples.answer(token_ids=(5, 0, 128_000), person_id="u_1"))
    assert saved.completion_id.startswith("c_")
    assert read_completion(store, saved.completion_id) == saved


def test_saving_again_changes_nothing_and_another_answer_is_refused(store: Store) -> None:
    saved = save_completion(store, samples.answer(completion_id="c_mine"))
    assert save_completion(store, saved) == saved
    with pytest.raises(StateConflict, match="'c_mine'"):
        save_completion(store, dataclasses.replace(saved, text="other"))
    assert read_completion(store, "c_mine").text == "Paris."


def test_a_conversation_shows_its_turns_with_the_newest_thumb(store: Store) -> None:
    ann, conversation_id = samples.person(store).person_id, new_conversation_id()
    first = samples.answer(conversation_id=conversation_id, person_id=ann)
    saved = [save_completion(store, first)]
    longer = (*first.messages, Message(role="assistant", content="Paris."), *samples.ask("And of Spain?"))
    saved.append(save_completion(store, dataclasses.replace(first, messages=longer, text="Madrid.")))
    save_rating(store, saved[0].completion_id, ann, 1)
    save_rating(store, saved[0].completion_id, ann, -1)
    turns = read_conversation(store, conversation_id, ann)
    assert [(turn.completion, turn.rating) for turn in turns] == [(saved[0], -1), (saved[1], 0)]


def test_conversations_are_listed_by_last_use_and_belong_to_one_person(store: Store) -> None:
    ann, bob = (samples.person(store).person_id for _ in range(2))
    for name in ("cv_a", "cv_b", "cv_a"):
        save_completion(store, samples.answer(asked=f"About {name}\n?", conversation_id=name, person_id=ann))
    listed = read_conversations(store, ann)
    assert [(one.conversation_id, one.title, one.num_turns) for one in listed] == [
        ("cv_a", "About cv_a ?", 2),
        ("cv_b", "About cv_b ?", 1),
    ]
    assert read_conversations(store, bob) == []
    with pytest.raises(NotFound):
        read_conversation(store, "cv_a", bob)
