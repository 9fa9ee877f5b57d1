"""Adjudication: which tasks wait, whose verdict holds, and that it is an admin's."""

from __future__ import annotations

import pytest

from store.adjudications import read_adjudications, read_disputed, save_adjudication
from store.database import Store
from store.effective import QualitySettings
from store.errors import BadValue, NotAllowed, NotFound
from store.judgements import save_judgement
from store.labels import build_rows
from store.records import PairRow, Task
from tests.store import samples

SETTINGS = QualitySettings()


def judged(store: Store, *said: str, **act: object) -> Task:
    """A pair on which a new person each says `first`, `second` or another choice."""
    task = samples.task(store, wanted=len(said))
    first, second = task.completion_ids
    for word in said:
        held = samples.lease(store, samples.person(store).person_id)
        assert held.task.task_id == task.task_id
        named = {"first": (first, second), "second": (second, first)}.get(word)
        if named:
            both = {"chosen_id": named[0], "rejected_id": named[1], "strength": 2}
            save_judgement(store, task.task_id, held.person_id, choice="prefer", **both, **act)  # type: ignore[arg-type]
        else:
            save_judgement(store, task.task_id, held.person_id, choice=word, **act)  # type: ignore[arg-type]
    return task


def decide(store: Store, task: Task, side: str, admin: str, strength: int = 3) -> None:
    first, second = task.completion_ids
    chosen, rejected = (first, second) if side == "first" else (second, first)
    both = {"chosen_id": chosen, "rejected_id": rejected}
    save_adjudication(store, task.task_id, admin, choice="prefer", strength=strength, **both)


def pairs(store: Store) -> list[PairRow]:
    with store.read() as cursor:
        return build_rows(cursor).pairs


@pytest.fixture
def admin(store: Store) -> str:
    return samples.person(store, "admin").person_id


def test_tasks_people_disagree_on_wait_the_least_agreed_first(store: Store) -> None:
    judged(store, "first", "first", "first", "first")
    two_thirds = judged(store, "first", "first", "second")
    split = judged(store, "second", "first", comment="hard to say")
    judged(store, "first")
    found = read_disputed(store, SETTINGS)
    assert [each.task for each in found] == [split, two_thirds]
    assert found[0].votes == {"first": 1, "second": 1}
    assert found[0].agreement == 0.5
    assert found[0].comments == ("hard to say", "hard to say")
    assert len(read_disputed(store, SETTINGS, limit=1)) == 1


def test_a_task_that_several_people_skipped_waits(store: Store) -> None:
    judged(store, "first", "first")
    thrice = judged(store, "skip", "skip", "skip")
    [found] = read_disputed(store, SETTINGS)
    assert found.task == thrice
    assert (found.num_skips, found.votes, found.agreement) == (3, {}, None)


def test_a_verdict_supersedes_the_votes_and_the_newest_holds(store: Store, admin: str) -> None:
    task = judged(store, "first", "second")
    assert pairs(store) == []
    decide(store, task, "second", admin)
    [row] = pairs(store)
    assert (row.chosen, row.weight, row.probability) == ("second answer", 1.5, 1.0)
    assert (row.source, row.person_ids) == ("adjudicated", (admin,))
    decide(store, task, "first", admin)
    assert [row.chosen for row in pairs(store)] == ["first answer"]
    assert read_disputed(store, SETTINGS) == []


def test_a_verdict_taken_back_brings_votes_and_dispute_back(store: Store, admin: str) -> None:
    task = judged(store, "first", "second")
    decide(store, task, "second", admin)
    save_adjudication(store, task.task_id, admin, choice="skip")
    assert pairs(store) == []
    assert [each.task for each in read_disputed(store, SETTINGS)] == [task]
    with pytest.raises(BadValue, match="no verdict to take back"):
        save_adjudication(store, task.task_id, admin, choice="skip")


def test_the_same_verdict_twice_is_one_event(store: Store, admin: str) -> None:
    task = judged(store, "first", "second")
    decide(store, task, "second", admin)
    decide(store, task, "second", admin)
    assert len(read_adjudications(store)) == 1


def test_a_verdict_is_an_admins_and_must_fit_the_task(store: Store, admin: str) -> None:
    task = judged(store, "first", "second")
    with pytest.raises(NotAllowed, match="a verdict is an admin's"):
        decide(store, task, "first", samples.person(store).person_id)
    with pytest.raises(BadValue, match="must be the two completions"):
        save_adjudication(
            store, task.task_id, admin, choice="prefer", chosen_id="c_x", rejected_id="c_y", strength=1
        )
    with pytest.raises(BadValue, match="not one of prefer, tie, both_bad, skip"):
        save_adjudication(store, task.task_id, admin, choice="up")
    with pytest.raises(NotFound):
        save_adjudication(store, "t_none", admin, choice="tie")


def test_the_person_left_out_includes_who_adjudicated(store: Store, admin: str) -> None:
    task = judged(store, "first")
    decide(store, task, "second", admin)
    with store.read() as cursor:
        [row] = build_rows(cursor, without=[admin]).pairs
    assert row.chosen == "first answer"
