"""Guessing gets slower and slower; one success wipes the slate."""

from __future__ import annotations

import threading

import pytest

from annotate.errors import TooManyRequests
from annotate.throttle import LONGEST_WAIT_S, SignInThrottle, Turnstile


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fail(throttle: SignInThrottle, times: int, *keys: str) -> None:
    for _ in range(times):
        throttle.try_once(keys)


def test_the_sixth_try_in_a_row_has_to_wait() -> None:
    throttle = SignInThrottle(Clock())
    fail(throttle, 5, "name anna")
    with pytest.raises(TooManyRequests, match="try again in 1 s"):
        throttle.try_once(["name anna"])


def test_the_wait_doubles_up_to_a_quarter_of_an_hour() -> None:
    clock = Clock()
    throttle = SignInThrottle(clock)
    fail(throttle, 5, "name anna")
    waits = []
    for _ in range(14):
        with pytest.raises(TooManyRequests) as refused:
            throttle.try_once(["name anna"])
        waits.append(refused.value.retry_after_s)
        clock.now += refused.value.retry_after_s
        fail(throttle, 1, "name anna")
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == LONGEST_WAIT_S


def test_a_name_waits_whatever_address_asks_for_it() -> None:
    throttle = SignInThrottle(Clock())
    for number in range(5):
        throttle.try_once(["name anna", f"client {number}"])
    with pytest.raises(TooManyRequests):
        throttle.try_once(["name anna", "client 99"])


def test_an_address_waits_whatever_name_it_tries() -> None:
    throttle = SignInThrottle(Clock())
    for number in range(5):
        throttle.try_once([f"name {number}", "client 1"])
    with pytest.raises(TooManyRequests):
        throttle.try_once(["name 99", "client 1"])
    throttle.try_once(["name 99", "client 2"])


def test_signing_in_forgives_the_failures() -> None:
    throttle = SignInThrottle(Clock())
    fail(throttle, 4, "name anna")
    throttle.forgive(["name anna"])
    fail(throttle, 5, "name anna")


def test_failures_long_ago_do_not_count() -> None:
    clock = Clock()
    throttle = SignInThrottle(clock)
    fail(throttle, 5, "name anna")
    clock.now += 2 * LONGEST_WAIT_S + 5
    fail(throttle, 5, "name anna")


def test_the_turnstile_turns_the_next_one_away_when_all_places_are_taken() -> None:
    turnstile = Turnstile(at_once=1, waiting=1)
    with turnstile.enter():
        waiting = threading.Thread(target=lambda: turnstile.enter().__enter__(), daemon=True)
        waiting.start()
        while turnstile._places._value:  # until the second has its place
            pass
        with pytest.raises(TooManyRequests), turnstile.enter():
            pass
    waiting.join(5)
    assert not waiting.is_alive()
