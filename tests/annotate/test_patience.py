"""When somebody who was turned away is told to come back."""

from __future__ import annotations

import pytest

from annotate.patience import LONGEST_S, SHORTEST_S, UNKNOWN_S, Patience


class Clock:
    """Stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def patience_with(took_s: float, clock: Clock) -> Patience:
    """Answers of late took that long."""
    patience = Patience(clock)
    for _ in range(10):
        patience.note_finished(took_s)
    return patience


def test_a_full_queue_has_room_when_half_of_it_is_answered() -> None:
    assert patience_with(10.0, Clock()).until_room_s(in_flight=40) == 5.0
    assert patience_with(40.0, Clock()).until_room_s(in_flight=40) == 20.0


def test_who_is_turned_away_later_is_told_to_come_back_later() -> None:
    clock = Clock()
    patience = patience_with(10.0, clock)
    waits = [patience.until_room_s(in_flight=40) for _ in range(8)]
    assert waits == pytest.approx([5.0 + n / 4 for n in range(8)])
    clock.now += 20  # they have come back
    assert patience.until_room_s(in_flight=40) == 5.0


def test_an_estimate_stays_within_a_minute_and_without_answers_is_a_guess() -> None:
    clock = Clock()
    assert Patience(clock).until_answered_s() == UNKNOWN_S
    assert Patience(clock).until_room_s(0) == SHORTEST_S
    assert patience_with(1000.0, clock).until_room_s(in_flight=8) == LONGEST_S


def test_one_question_too_many_waits_as_long_as_an_answer_takes() -> None:
    clock = Clock()
    patience = patience_with(3.0, clock)
    assert patience.until_answered_s() == 3.0
    clock.now += 60
    assert patience.until_answered_s() == UNKNOWN_S, "what was long ago says nothing"
