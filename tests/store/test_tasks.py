"""Tasks and leases: never more judgements than wanted, never fewer, never twice by one person."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from store.database import Store
from store.errors import BadValue, HeedError, LeaseLost, NotFound
from store.judgements import read_judgements, save_judgement, undo_last
from store.queue_settings import PLAIN
from store.records import Lease
from store.tasks import add_task, count_open_tasks, lease_task, read_lease, renew_lease, retire_tasks
from tests.store import samples


def test_a_task_and_its_completions_are_saved_together(store: Store) -> None:
    prompt_id = samples.prompt(store)
    with pytest.raises(BadValue, match="a pair needs 2 distinct completions"):
        add_task(store, "pair", prompt_id, [samples.answer()])
    with pytest.raises(NotFound, match="'p_none'"):
        add_task(store, "single", "p_none", [samples.answer()])
    with pytest.raises(BadValue, match="wanted 0"):
        add_task(store, "single", prompt_id, [samples.answer()], wanted=0)
    assert count_open_tasks(store, "pair") == count_open_tasks(store, "single") == 0
    assert add_task(store, "single", prompt_id, [samples.answer(version="v7")]).version == "v7"


def test_someone_who_asks_again_gets_the_same_task_with_the_same_sides(store: Store) -> None:
    ann = samples.person(store).person_id
    for _ in range(2):
        samples.task(store)
    first = lease_task(store, ann, "pair", lambda task, _: task.completion_ids[1], now=samples.AT)
    again = lease_task(store, ann, "pair", samples.show_first, now=samples.AT + timedelta(seconds=9))
    assert first is not None
    assert again is not None
    assert (again.task, again.left_id, again.lease_id) == (
        first.task,
        first.task.completion_ids[1],
        first.lease_id,
    )
    assert again.expires_at == first.expires_at + timedelta(seconds=9)


def test_the_oldest_task_goes_first_and_each_kind_is_its_own_queue(store: Store) -> None:
    ann = samples.person(store).person_id
    pairs = [samples.task(store) for _ in range(3)]
    single = samples.task(store, "single")
    assert samples.lease(store, ann).task == pairs[0]
    assert samples.lease(store, ann, "single").task == single
    assert samples.lease(store, ann, "single").left_id is None


def test_a_lease_that_ran_out_goes_to_somebody_else(store: Store) -> None:
    ann, bob = (samples.person(store).person_id for _ in range(2))
    task = samples.task(store)
    held = samples.lease(store, ann, now=samples.AT)
    assert lease_task(store, bob, "pair", samples.show_first, now=samples.AT) is None
    renew_lease(store, task.task_id, ann, now=samples.AT + timedelta(seconds=599))
    assert lease_task(store, bob, "pair", samples.show_first, now=held.expires_at) is None
    late = held.expires_at + timedelta(seconds=600)
    assert samples.lease(store, bob, now=late).task == task
    for lost in (read_lease, renew_lease):
        with pytest.raises(LeaseLost, match="no longer held"):
            lost(store, task.task_id, ann, now=late)
    with pytest.raises(LeaseLost, match="nothing was saved"):
        save_judgement(store, task.task_id, ann, choice="tie", now=late)


def test_a_skipped_task_is_offered_to_another_annotator_and_not_again(store: Store) -> None:
    ann, bob = (samples.person(store).person_id for _ in range(2))
    task = samples.task(store)
    samples.lease(store, ann)
    save_judgement(store, task.task_id, ann, choice="skip")
    assert lease_task(store, ann, "pair", samples.show_first) is None
    assert samples.lease(store, bob).task == task


def test_retiring_leaves_judged_and_held_tasks_alone(store: Store) -> None:
    ann, bob = (samples.person(store).person_id for _ in range(2))
    judged, held, *_ = [samples.task(store, wanted=2, version="v1") for _ in range(4)]
    kept = samples.task(store, version="v2")
    samples.lease(store, ann)
    save_judgement(store, judged.task_id, ann, choice="tie")
    assert samples.lease(store, ann).task == held
    assert retire_tasks(store, "v2") == 2
    assert retire_tasks(store, "v2") == 0
    open_to_bob = []
    while offered := lease_task(store, bob, "pair", samples.show_first):
        open_to_bob.append(offered.task)
        save_judgement(store, offered.task.task_id, bob, choice="tie")
    assert open_to_bob == [judged, held, kept]


def test_left_must_be_one_of_the_two_completions(store: Store) -> None:
    ann = samples.person(store).person_id
    samples.task(store)
    with pytest.raises(BadValue, match="left of task"):
        lease_task(store, ann, "pair", lambda *_: "c_elsewhere")
    samples.lease(store, ann)


def act_at_random(store: Store, person_id: str, draw: random.Random) -> None:
    held = lease_task(store, person_id, "pair", samples.show_first)
    if held is None or draw.random() < 0.1:
        return
    try:
        if draw.random() < 0.15:
            undo_last(store, person_id)
        else:
            save_judgement(
                store, held.task.task_id, person_id, choice=draw.choice(["tie", "both_bad", "skip"])
            )
    except HeedError:  # an undone skip whose task went to others
        return


def finish(store: Store, people: list[str]) -> None:
    for person_id in people:
        while held := lease_task(store, person_id, "pair", samples.show_first):
            save_judgement(store, held.task.task_id, person_id, choice="tie")


@pytest.mark.parametrize("wanted", [1, 3])
def test_every_task_gets_exactly_the_judgements_it_wants(wanted: int) -> None:
    store = Store.in_memory(replace(PLAIN, skips_to_adjudicate=100))  # or what many skip leaves the queue
    people = [samples.person(store).person_id for _ in range(8)]
    tasks = [samples.task(store, wanted=wanted) for _ in range(8)]

    def work(number: int) -> None:
        draw = random.Random(number)
        for _ in range(12):
            act_at_random(store, people[number], draw)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    valid = [judgement for judgement in read_judgements(store) if not judgement.undone]
    given = Counter(judgement.task_id for judgement in valid if judgement.choice != "skip")
    assert max(given.values()) <= wanted
    assert max(Counter((judgement.task_id, judgement.person_id) for judgement in valid).values()) == 1

    late = [samples.person(store).person_id for _ in range(wanted)]
    finish(store, people + late)
    valid = [judgement for judgement in read_judgements(store) if not judgement.undone]
    given = Counter(judgement.task_id for judgement in valid if judgement.choice != "skip")
    assert given == {task.task_id: wanted for task in tasks}
    assert count_open_tasks(store, "pair") == 0
    store.close()


def test_many_threads_never_share_a_task_that_wants_one_judgement(store: Store) -> None:
    people = [samples.person(store).person_id for _ in range(8)]
    for _ in range(6):
        samples.task(store)

    def take(person_id: str) -> Lease | None:
        return lease_task(store, person_id, "pair", samples.show_first)

    with ThreadPoolExecutor(8) as pool:
        leases = [held for held in pool.map(take, people) if held is not None]
    assert len(leases) == len({held.task.task_id for held in leases}) == 6


def test_a_lease_among_ten_thousand_open_tasks_is_quick(store: Store) -> None:
    ann = samples.person(store).person_id
    samples.many_tasks(store, 10_000)
    for _ in range(110):  # more than a first page of what they may not have again
        save_judgement(store, samples.lease(store, ann).task.task_id, ann, choice="skip")
    before = time.process_time()  # processor time: other programs do not make it fail
    for _ in range(10):
        save_judgement(store, samples.lease(store, ann).task.task_id, ann, choice="skip")
    assert (time.process_time() - before) / 10 < 0.05
