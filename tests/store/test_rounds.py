"""Rounds: one at a time, forward only, and every end has its sentence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from store.database import Store
from store.errors import NotFound, StateConflict
from store.records import Round
from store.rounds import advance_round, create_round, read_round, read_rounds, running_round


def test_twenty_threads_start_one_round(store: Store) -> None:
    def start(_: int) -> Round | str:
        try:
            return create_round(store, "by hand", "v0")
        except StateConflict as conflict:
            return str(conflict)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(start, range(20)))
    [started] = [answer for answer in answers if isinstance(answer, Round)]
    refusals = {answer for answer in answers if isinstance(answer, str)}
    assert refusals == {f"round {started.round_id} is queued; one round runs at a time"}
    assert running_round(store) == started


def test_a_round_keeps_what_each_step_told_it(store: Store) -> None:
    started = create_round(store, "120 new labels", "v0")
    advance_round(store, started.round_id, "preparing", version="v1", num_pairs=90, num_ratings=30)
    advance_round(store, started.round_id, "training")
    ended = advance_round(store, started.round_id, "rejected", reason="too long")
    assert read_round(store, started.round_id) == ended
    assert (ended.version, ended.num_pairs, ended.num_ratings, ended.trigger) == (
        "v1",
        90,
        30,
        "120 new labels",
    )
    assert ended.finished_at is not None
    assert running_round(store) is None


def test_a_round_neither_goes_back_nor_rises_again(store: Store) -> None:
    started = create_round(store, "by hand", "v0")
    advance_round(store, started.round_id, "evaluating")
    with pytest.raises(StateConflict, match="is evaluating already; it cannot go back to training"):
        advance_round(store, started.round_id, "training")
    advance_round(store, started.round_id, "failed", reason="killed by signal 9")
    with pytest.raises(StateConflict, match="has ended as failed; it cannot become promoted"):
        advance_round(store, started.round_id, "promoted")


def test_rounds_are_read_newest_first_and_an_unknown_one_is_named(store: Store) -> None:
    ids = []
    for _ in range(3):
        ids.append(create_round(store, "by hand", "v0").round_id)
        advance_round(store, ids[-1], "cancelled")
    assert [one.round_id for one in read_rounds(store, limit=2)] == ids[:0:-1]
    with pytest.raises(NotFound, match="'rd_none'"):
        read_round(store, "rd_none")
    with pytest.raises(NotFound, match="'v9'"):
        create_round(store, "by hand", "v9")
