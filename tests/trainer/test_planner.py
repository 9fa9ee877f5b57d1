"""When a round starts: each trigger and guard against a store and a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from store.database import Store
from store.records import Why
from store.rounds import advance_round, create_round
from store.snapshots import write_snapshot
from tests.trainer.labelled import judge_pairs
from trainer.planner import TriggerSettings, explain

SETTINGS = TriggerSettings(min_new_labels=5, max_wait_hours=2.0, min_labels=2, min_free_mib=0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path)
    yield opened
    opened.close()


def verdicts(why: Why) -> dict[str, bool]:
    return {condition.name: condition.holds for condition in why.conditions}


def later(hours: float) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


def test_nothing_starts_without_labels_however_long_it_waits(store: Store) -> None:
    why = explain(store, SETTINGS, later(hours=1000))
    assert not why.starts
    assert verdicts(why)["waited_hours"] is False


def test_enough_new_labels_start_a_round(store: Store) -> None:
    judge_pairs(store, 4)
    assert not explain(store, SETTINGS).starts
    judge_pairs(store, 1, name="bob")
    why = explain(store, SETTINGS)
    assert why.starts
    assert why.conditions[0].says == "5 of 5 new labels since the last round"


def test_any_new_label_starts_a_round_after_the_wait(store: Store) -> None:
    judge_pairs(store, 2)
    assert not explain(store, SETTINGS, later(hours=1.9)).starts
    assert explain(store, SETTINGS, later(hours=2.1)).starts


def test_the_wait_can_be_turned_off(store: Store) -> None:
    judge_pairs(store, 2)
    settings = TriggerSettings(min_new_labels=5, max_wait_hours=0, min_labels=2, min_free_mib=0)
    assert not explain(store, settings, later(hours=1000)).starts


def test_no_round_starts_beside_a_running_one(store: Store) -> None:
    judge_pairs(store, 5)
    running = create_round(store, trigger="test", parent="v0")
    why = explain(store, SETTINGS)
    assert not why.starts
    assert any(running.round_id in condition.says for condition in why.conditions)


def test_labels_of_a_concluded_round_are_not_new_and_those_of_a_failed_one_are(
    store: Store, tmp_path: Path
) -> None:
    judge_pairs(store, 5)
    for state in ("failed", "rejected"):
        started = create_round(store, trigger="test", parent="v0")
        write_snapshot(store, tmp_path / "rounds" / started.round_id / "snapshot")
        advance_round(store, started.round_id, "preparing")
        advance_round(store, started.round_id, "training")
        if state == "rejected":
            advance_round(store, started.round_id, "evaluating")
        advance_round(store, started.round_id, state, reason="as the test wants")
        assert explain(store, SETTINGS).conditions[0].holds is (state == "failed")


def test_a_failed_round_holds_the_next_automatic_one_back_for_a_while(store: Store) -> None:
    judge_pairs(store, 5)
    failed = create_round(store, trigger="test", parent="v0")
    advance_round(store, failed.round_id, "failed", reason="no memory")
    assert not explain(store, SETTINGS).starts
    assert explain(store, SETTINGS, later(hours=0.5)).starts


@pytest.mark.parametrize(
    ("field", "value"), [("min_new_labels", 0), ("max_wait_hours", -1), ("min_labels", 0)]
)
def test_an_impossible_trigger_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        TriggerSettings(**{field: value})
