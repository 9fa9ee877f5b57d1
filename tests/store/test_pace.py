"""A person's own pace, and what they said before."""

from __future__ import annotations

from datetime import datetime, timedelta

from store.database import Store
from store.judgements import save_judgement, undo_last
from store.pace import read_pace
from store.revision import read_decisions, read_last_act
from tests.store.samples import AT, lease, person, task


def judge_at(store: Store, person_id: str, moment: datetime, active_ms: int | None = None) -> str:
    """A skip-free act at that moment on a new task; its id."""
    task(store)
    held = lease(store, person_id, now=moment)
    save_judgement(store, held.task.task_id, person_id, choice="tie", active_ms=active_ms, now=moment)
    return held.task.task_id


def test_the_median_and_the_rate_come_from_the_time_in_use(store: Store) -> None:
    anna = person(store).person_id
    for active_ms in (10_000, 20_000, 60_000, None):
        judge_at(store, anna, AT, active_ms)
    pace = read_pace(store, anna, AT - timedelta(hours=1), AT)
    assert (pace.num_judged, pace.median_s, pace.per_hour) == (4, 20.0, 120.0)


def test_nobody_elses_and_no_earlier_and_no_undone_act_counts(store: Store) -> None:
    anna, ben = person(store).person_id, person(store).person_id
    judge_at(store, ben, AT)
    judge_at(store, anna, AT - timedelta(hours=3))
    judge_at(store, anna, AT)
    undo_last(store, anna, now=AT)
    pace = read_pace(store, anna, AT - timedelta(hours=1), AT)
    assert (pace.num_judged, pace.median_s, pace.per_hour, pace.since) == (0, None, None, None)


def test_a_stretch_of_work_begins_after_the_last_pause_of_more_than_five_minutes(store: Store) -> None:
    anna = person(store).person_id
    for minutes in (60, 40, 36, 31.5, 29):
        judge_at(store, anna, AT - timedelta(minutes=minutes))
    day = AT - timedelta(hours=5)
    assert read_pace(store, anna, day, AT - timedelta(minutes=25)).since == AT - timedelta(minutes=40)
    assert read_pace(store, anna, day, AT).since is None


def test_what_somebody_said_of_a_task_is_found_also_when_taken_back(store: Store) -> None:
    anna, ben = person(store).person_id, person(store).person_id
    task_id = judge_at(store, anna, AT)
    undo_last(store, anna, now=AT)
    last = read_last_act(store, anna, task_id)
    assert last is not None
    assert (last[0].task_id, last[1].choice, last[1].undone) == (task_id, "tie", True)
    assert read_last_act(store, ben, task_id) is None


def test_the_last_decisions_are_their_own_standing_ones_newest_first(store: Store) -> None:
    anna, ben = person(store).person_id, person(store).person_id
    judge_at(store, ben, AT)
    made = [judge_at(store, anna, AT + timedelta(seconds=n)) for n in range(4)]
    undo_last(store, anna, now=AT + timedelta(seconds=9))
    decisions = read_decisions(store, anna, limit=2)
    assert [decision.judgement.task_id for decision in decisions] == [made[2], made[1]]
    assert decisions[0].prompt.startswith("question")
