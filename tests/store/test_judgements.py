"""Judgements: saved once, taken back by an event, refused when they do not fit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from store.database import Store
from store.errors import BadValue, LeaseLost, NotFound, StateConflict
from store.judgements import count_judgements, read_judgements, save_judgement, undo_last
from store.records import Judgement
from store.tasks import count_open_tasks, lease_task, read_lease
from tests.store import samples


def test_ten_posts_of_one_act_are_one_judgement(store: Store) -> None:
    ann = samples.person(store).person_id
    samples.task(store)
    held = samples.lease(store, ann)

    def post(_: int) -> Judgement:
        return samples.prefer_first(store, held)

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(post, range(10)))
    assert len(set(answers)) == 1
    assert read_judgements(store) == [answers[0]]
    assert answers[0].left_id == held.left_id


def test_another_act_on_a_judged_task_is_a_conflict_and_the_first_stays(store: Store) -> None:
    ann = samples.person(store).person_id
    samples.task(store)
    held = samples.lease(store, ann)
    first = samples.prefer_first(store, held)
    with pytest.raises(StateConflict, match="before, as prefer; undo that first"):
        save_judgement(store, held.task.task_id, ann, choice="tie")
    assert read_judgements(store) == [first]


def test_a_task_nobody_gave_you_cannot_be_judged(store: Store) -> None:
    ann = samples.person(store).person_id
    task = samples.task(store)
    with pytest.raises(LeaseLost):
        save_judgement(store, task.task_id, ann, choice="tie")
    with pytest.raises(NotFound, match="'t_none'"):
        save_judgement(store, "t_none", ann, choice="tie")


def test_an_act_that_does_not_fit_the_task_is_refused(store: Store) -> None:
    ann = samples.person(store).person_id
    task = samples.task(store)
    samples.lease(store, ann)
    first, second = task.completion_ids
    with pytest.raises(BadValue, match="'up' is not one of prefer, tie, both_bad, skip"):
        save_judgement(store, task.task_id, ann, choice="up")
    with pytest.raises(BadValue, match="the two completions"):
        save_judgement(
            store, task.task_id, ann, choice="prefer", chosen_id=first, rejected_id=first, strength=1
        )
    with pytest.raises(BadValue, match="strength 4 is not one of 1, 2, 3"):
        save_judgement(
            store, task.task_id, ann, choice="prefer", chosen_id=first, rejected_id=second, strength=4
        )
    with pytest.raises(BadValue, match="active_ms -1"):
        save_judgement(store, task.task_id, ann, choice="tie", active_ms=-1)
    assert read_judgements(store) == []
    assert read_lease(store, task.task_id, ann).task == task


def test_an_undo_gives_the_task_back_with_the_same_sides(store: Store) -> None:
    ann = samples.person(store).person_id
    task = samples.task(store)
    samples.task(store)
    lease_task(store, ann, "pair", lambda task, _: task.completion_ids[1])
    save_judgement(store, task.task_id, ann, choice="tie")
    moved_on = samples.lease(store, ann)
    restored = undo_last(store, ann)
    assert restored is not None
    assert (restored.task, restored.left_id) == (task, task.completion_ids[1])
    assert [judgement.undone for judgement in read_judgements(store)] == [True]
    assert samples.lease(store, ann).task == task
    assert count_open_tasks(store, "pair") == 1  # the task they had moved on to is free again
    with pytest.raises(LeaseLost):
        read_lease(store, moved_on.task.task_id, ann)
    again = save_judgement(store, task.task_id, ann, choice="both_bad")
    assert [judgement.choice for judgement in read_judgements(store, ann) if not judgement.undone] == [
        again.choice
    ]


def test_undo_goes_back_act_by_act_until_nothing_is_left(store: Store) -> None:
    ann = samples.person(store).person_id
    tasks = [samples.task(store) for _ in range(2)]
    for choice in ("tie", "skip"):
        save_judgement(store, samples.lease(store, ann).task.task_id, ann, choice=choice)  # type: ignore[arg-type]
    assert [undone.task for undone in (undo_last(store, ann), undo_last(store, ann)) if undone] == tasks[::-1]
    assert undo_last(store, ann) is None
    assert count_judgements(store, ann) == 0


def test_a_skip_cannot_be_undone_once_somebody_else_has_the_task(store: Store) -> None:
    ann, bob = (samples.person(store).person_id for _ in range(2))
    task = samples.task(store)
    samples.lease(store, ann)
    save_judgement(store, task.task_id, ann, choice="skip")
    samples.lease(store, bob)
    with pytest.raises(StateConflict, match="the skip stays"):
        undo_last(store, ann)
    save_judgement(store, task.task_id, bob, choice="tie")
    with pytest.raises(StateConflict):
        undo_last(store, ann)


def test_a_judgement_of_a_replaced_version_is_kept_with_that_version(store: Store) -> None:
    ann = samples.person(store).person_id
    task = samples.task(store, version="v0")
    samples.lease(store, ann)
    judged = save_judgement(store, task.task_id, ann, choice="tie", active_ms=1200, comment="same")
    assert (judged.task_id, judged.active_ms, judged.comment) == (task.task_id, 1200, "same")


def test_acts_are_read_newest_first_and_counted_since_a_time(store: Store) -> None:
    ann, bob = (samples.person(store).person_id for _ in range(2))
    for hours, someone in enumerate((ann, bob, ann)):
        now = samples.AT + timedelta(hours=hours)
        task = samples.task(store)
        samples.lease(store, someone, now=now)
        save_judgement(store, task.task_id, someone, choice="tie", now=now)
    acts = read_judgements(store)
    assert [act.created_at.hour - samples.AT.hour for act in acts] == [2, 1, 0]
    assert read_judgements(store, ann, limit=1) == acts[:1]
    assert count_judgements(store, ann) == 2
    assert count_judgements(store, ann, since=samples.AT + timedelta(hours=1)) == 1
