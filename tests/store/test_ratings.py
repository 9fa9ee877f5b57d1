"""Ratings: a double click is one thumb, the last one wins."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from store.completions import save_completion
from store.database import Store
from store.errors import BadValue, NotFound
from store.ratings import save_rating
from store.records import Rating
from tests.store import samples


def num_events(store: Store) -> int:
    return int(str(store.health()["last_seq"]))


def test_ten_posts_of_one_thumb_are_one_rating(store: Store) -> None:
    ann = samples.person(store, "tester").person_id
    completion_id = save_completion(store, samples.answer()).completion_id
    before = num_events(store)

    def post(_: int) -> Rating:
        return save_rating(store, completion_id, ann, 1, reasons=["clear"])

    with ThreadPoolExecutor(10) as pool:
        assert len(set(pool.map(post, range(10)))) == 1
    assert num_events(store) == before + 1


def test_another_thumb_another_reason_or_another_person_is_a_new_event(store: Store) -> None:
    ann, bob = (samples.person(store, "tester").person_id for _ in range(2))
    completion_id = save_completion(store, samples.answer()).completion_id
    before = num_events(store)
    save_rating(store, completion_id, ann, 1)
    save_rating(store, completion_id, ann, -1)
    save_rating(store, completion_id, ann, -1, reasons=["wrong"])
    save_rating(store, completion_id, ann, 0)
    save_rating(store, completion_id, bob, 1)
    assert num_events(store) == before + 5


def test_a_thumb_needs_a_completion_and_one_of_three_values(store: Store) -> None:
    ann = samples.person(store, "tester").person_id
    with pytest.raises(NotFound, match="'c_none'"):
        save_rating(store, "c_none", ann, 1)
    with pytest.raises(BadValue, match="rating 2 is not one of -1, 0, 1"):
        save_rating(store, "c_none", ann, 2)  # type: ignore[arg-type]
