"""Counting who did how much and when."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from store.activity import Activity, count_by_day, count_by_person
from store.database import Store
from store.judgements import save_judgement, undo_last
from store.records import Choice
from tests.store import samples

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def judge(store: Store, person_id: str, choice: Choice, now: datetime) -> None:
    samples.task(store, "single")
    held = samples.lease(store, person_id, "single", now=now)
    save_judgement(store, held.task.task_id, person_id, choice=choice, now=now)


def test_each_persons_standing_acts_are_counted_once(store: Store) -> None:
    ann, bob = (samples.person(store).person_id for _ in range(2))
    judge(store, ann, "up", NOON - timedelta(days=1))
    judge(store, ann, "skip", NOON)
    judge(store, bob, "down", NOON)
    undo_last(store, bob)
    counted = count_by_person(store, NOON - timedelta(hours=1))
    assert counted == {ann: Activity(judged=2, recent=1, skipped=1)}


def test_days_are_counted_apart_and_skips_left_out(store: Store) -> None:
    ann = samples.person(store).person_id
    judge(store, ann, "up", NOON - timedelta(days=1))
    judge(store, ann, "up", NOON)
    judge(store, ann, "skip", NOON)
    assert count_by_day(store) == [(date(2026, 3, 3), "judgements", 1), (date(2026, 3, 4), "judgements", 1)]
    assert count_by_day(store, num_days=0) == [(date(2026, 3, 4), "judgements", 1)]


def test_an_empty_store_has_no_days(store: Store) -> None:
    assert count_by_day(store) == []
    assert count_by_person(store, NOON) == {}
