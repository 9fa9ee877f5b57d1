"""A task as a person would look at it."""

from __future__ import annotations

import pytest

from store.database import Store
from store.errors import NotFound
from store.judgements import save_judgement, undo_last
from store.shown import read_shown_task, read_shown_tasks
from tests.store import samples


def test_votes_are_counted_without_names_and_what_was_undone_is_not(store: Store) -> None:
    task = samples.task(store, wanted=3)
    ann, bob, cleo = (samples.person(store).person_id for _ in range(3))
    samples.prefer_first(store, samples.lease(store, ann))
    samples.lease(store, bob)
    save_judgement(store, task.task_id, bob, choice="tie")
    samples.prefer_first(store, samples.lease(store, cleo))
    undo_last(store, cleo)
    shown = read_shown_task(store, task.task_id)
    assert shown.votes == {task.completion_ids[0]: 1, "tie": 1}
    assert shown.text_of(task.completion_ids[1]) == "second answer"
    assert not {ann, bob, cleo} & set(str(shown).replace("'", " ").split())


def test_tasks_are_read_together_and_an_unknown_one_is_named(store: Store) -> None:
    pair, single = samples.task(store), samples.task(store, "single")
    found = read_shown_tasks(store, [pair.task_id, single.task_id, "t_none"])
    assert {task_id: shown.texts for task_id, shown in found.items()} == {
        pair.task_id: ("first answer", "second answer"),
        single.task_id: ("only answer",),
    }
    with pytest.raises(NotFound, match="'t_none'"):
        read_shown_task(store, "t_none")
    assert read_shown_tasks(store, []) == {}
