"""What an AI judge said is kept beside people's judgements, counted, and compared with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from store.clock import utc
from store.database import Store
from store.errors import BadValue
from store.events import new_event
from store.judge_verdicts import (
    count_calls,
    count_verdicts,
    find_pairs_to_judge,
    find_verdict,
    read_common_tasks,
    save_verdict,
)
from store.judgements import save_judgement
from store.outside import count_outside_labels
from store.records import JudgeVerdict, OutsideLabel
from store.writer import Decision
from tests.store import samples

SOURCE = "judge:critic"


def said(task_id: str, verdict: str = "first", **fields: object) -> JudgeVerdict:
    made = JudgeVerdict(task_id, SOURCE, "ab" * 32, "first", ("A", "B"), 2, utc())
    return replace(made, verdict=verdict, **fields)  # type: ignore[arg-type]


def label_for(task_id: str) -> OutsideLabel:
    return OutsideLabel("", "pair", SOURCE, samples.ask("a"), "b", utc(), rejected="c", task_id=task_id)


def test_a_verdict_and_its_label_survive_a_rebuild_from_the_journal(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    task = samples.task(store)
    verdict = save_verdict(store, said(task.task_id), label_for(task.task_id))
    before = samples.facts(store)
    store.close()
    for table in tmp_path.glob("heed.duckdb*"):
        table.unlink()
    store = Store.open(tmp_path)
    assert samples.facts(store) == before
    assert find_verdict(store, SOURCE, verdict.content_sha256) == verdict
    assert count_outside_labels(store) == {SOURCE: 1}
    store.close()


def test_a_bad_label_leaves_no_verdict_either(store: Store) -> None:
    task = samples.task(store)
    with pytest.raises(BadValue, match="same text"):
        save_verdict(store, said(task.task_id), replace(label_for(task.task_id), rejected="b"))
    assert count_calls(store, SOURCE) == 0


def test_what_failed_is_asked_again_and_its_calls_still_count(store: Store) -> None:
    task = samples.task(store)
    save_verdict(store, said(task.task_id, "failed", num_calls=5))
    assert [pair.task_id for pair in find_pairs_to_judge(store, SOURCE, 10)] == [task.task_id]
    assert find_verdict(store, SOURCE, "ab" * 32) is None
    save_verdict(store, said(task.task_id, "tie"))
    assert find_pairs_to_judge(store, SOURCE, 10) == []
    assert find_pairs_to_judge(store, "judge:other", 10) != []
    assert count_calls(store, SOURCE) == 7
    assert count_verdicts(store, SOURCE) == {"first": 0, "second": 0, "tie": 1, "unreadable": 0, "failed": 1}


def test_calls_are_counted_since_a_moment(store: Store) -> None:
    now = utc()
    for hours in (30, 2):
        save_verdict(store, said("t", "tie", created_at=now - timedelta(hours=hours)))
    assert (count_calls(store, SOURCE, now - timedelta(hours=3)), count_calls(store, SOURCE)) == (2, 4)


def test_people_count_by_their_most_frequent_verdict_and_an_adjudication_outweighs_them(store: Store) -> None:
    people = [samples.person(store) for _ in range(3)]
    tasks = [samples.task(store, wanted=3) for _ in range(2)]
    for person in people:
        for _ in tasks:
            samples.prefer_first(store, samples.lease(store, person.person_id))
    settled = new_event(
        "adjudicated",
        utc(),
        adjudication_id="a_1",
        task_id=tasks[1].task_id,
        person_id=people[0].person_id,
        choice="prefer",
        chosen_id=tasks[1].completion_ids[1],
        rejected_id=tasks[1].completion_ids[0],
        strength=1,
        comment="",
    )
    store.write(lambda _: Decision(None, [settled]))
    for task in tasks:
        save_verdict(store, said(task.task_id))
    save_verdict(store, said(samples.task(store).task_id))
    common = {found.task_id: (found.by_judge, found.by_people) for found in read_common_tasks(store, SOURCE)}
    assert common == {tasks[0].task_id: ("first", "first"), tasks[1].task_id: ("first", "second")}


def test_as_many_votes_for_one_as_for_the_other_are_a_tie(store: Store) -> None:
    task = samples.task(store, wanted=2)
    one, other = samples.person(store), samples.person(store)
    samples.prefer_first(store, samples.lease(store, one.person_id))
    samples.lease(store, other.person_id)
    first_id, second_id = task.completion_ids
    save_judgement(
        store,
        task.task_id,
        other.person_id,
        choice="prefer",
        chosen_id=second_id,
        rejected_id=first_id,
        strength=1,
    )
    save_verdict(store, said(task.task_id))
    assert [found.by_people for found in read_common_tasks(store, SOURCE)] == ["tie"]
