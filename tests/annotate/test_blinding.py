"""Sides: fair, stable, and mapped back to chosen and rejected."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from annotate.blinding import choose_side, draw_left, read_sides
from store.errors import BadValue
from store.records import Lease, Task

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pair(number: int = 0) -> Task:
    return Task(f"t{number}", "pair", "p", (f"first{number}", f"second{number}"), "v0", 1, NOW)


def lease(task: Task, left_id: str | None) -> Lease:
    return Lease("l", task, "anna", left_id, NOW)


def test_each_completion_is_left_half_of_the_time() -> None:
    for person in ("anna", "ben"):
        first_left = sum(draw_left(pair(n), person) == f"first{n}" for n in range(10_000))
        assert 4_700 <= first_left <= 5_300


def test_two_people_see_the_same_pair_in_unrelated_orders() -> None:
    agreeing = sum(draw_left(pair(n), "anna") == draw_left(pair(n), "ben") for n in range(10_000))
    assert 4_700 <= agreeing <= 5_300


def test_the_draw_is_the_same_every_time() -> None:
    assert len({draw_left(pair(7), "anna") for _ in range(20)}) == 1


@pytest.mark.parametrize("left", ["first0", "second0"])
def test_the_chosen_side_wins_wherever_it_was_shown(left: str) -> None:
    held = lease(pair(), left)
    right = "second0" if left == "first0" else "first0"
    assert read_sides(held) == (left, right)
    assert choose_side(held, "left") == (left, right)
    assert choose_side(held, "right") == (right, left)


def test_a_single_answer_has_no_side_to_prefer() -> None:
    single = Task("t", "single", "p", ("only",), "v0", 1, NOW)
    assert read_sides(lease(single, None)) == ("only", None)
    with pytest.raises(BadValue, match="choose up, down or skip"):
        choose_side(lease(single, None), "left")
