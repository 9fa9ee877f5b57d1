"""Who gets a slot and when, without a model: the batch is scripted and the test opens its gate."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest

from serving.request import Request
from serving.scheduler import Scheduler
from serving.scoring import Scoring
from serving.settings import BatchSettings
from store.errors import Busy, HeedError, StateConflict
from store.records import Sampling
from tests.serving.fakes import ScriptedBatch, wait_until

SETTINGS = BatchSettings(
    slots=4, background_slots=2, background_beside=1, max_waiting=4, stream_s=0.0, cache_tokens=1000
)


def request(
    max_tokens: int = 2, background: bool = False, prompt_length: int = 3, version: str = "v1"
) -> Request:
    return Request(version, [1] * prompt_length, Sampling(), max_tokens, background)


def read(asked: Request) -> list[int]:
    """Wait for the end of a request and return its tokens."""
    tokens: list[int] = []
    while (update := asked.updates.get(timeout=10)) is not None:
        if isinstance(update, Exception):
            raise update
        tokens += update
    return tokens


@pytest.fixture
def closed_batch() -> ScriptedBatch:
    return ScriptedBatch(is_open=False)


@pytest.fixture
def stopped(closed_batch: ScriptedBatch) -> Iterator[Scheduler]:
    """A scheduler held inside its first step by one long request, so that others pile up behind it."""
    scheduler = Scheduler(closed_batch, SETTINGS)  # type: ignore[arg-type]
    scheduler.submit(request(max_tokens=50))
    assert closed_batch.has_joined.acquire(timeout=10)
    yield scheduler
    closed_batch.gate.release(10_000)
    scheduler.close()


def test_requests_that_wait_join_together(stopped: Scheduler, closed_batch: ScriptedBatch) -> None:
    asked = [request() for _ in range(3)]
    for one in asked:
        stopped.submit(one)
    closed_batch.gate.release(10_000)
    assert [read(one) for one in asked] == [[7, 7]] * 3
    assert closed_batch.joined[1] == asked


def test_people_go_before_background_work(stopped: Scheduler, closed_batch: ScriptedBatch) -> None:
    background = [request(background=True) for _ in range(3)]
    people = [request() for _ in range(4)]
    for one in (*background, *people):
        stopped.submit(one)
    closed_batch.gate.release(10_000)
    for one in (*background, *people):
        read(one)
    order = [one for joined in closed_batch.joined[1:] for one in joined]
    assert order[:3] == people[:3]
    assert order.index(people[3]) < order.index(background[0])


def test_background_work_never_holds_more_than_its_slots() -> None:
    batch = ScriptedBatch(is_open=False)
    scheduler = Scheduler(batch, SETTINGS)  # type: ignore[arg-type]
    background = [request(background=True) for _ in range(4)]
    for one in background:
        scheduler.submit(one)
    batch.gate.release(10_000)
    for one in background:
        read(one)
    assert max(len(joined) for joined in batch.joined) <= 2
    scheduler.close()


def test_beside_people_background_work_holds_fewer(stopped: Scheduler, closed_batch: ScriptedBatch) -> None:
    background = [request(background=True) for _ in range(4)]
    for one in background:
        stopped.submit(one)
    closed_batch.gate.release(10_000)
    for one in background:
        read(one)
    assert [len(joined) for joined in closed_batch.joined] == [1, 1, 1, 1, 1]


def test_nobody_is_let_in_whom_the_cache_could_not_hold_to_the_end(
    stopped: Scheduler, closed_batch: ScriptedBatch
) -> None:
    """1,000 columns: beside the 53 of the running one there is room for one of 400, not for two."""
    asked = [request(prompt_length=398) for _ in range(3)]
    for one in asked:
        stopped.submit(one)
    closed_batch.gate.release(10_000)
    for one in asked:
        read(one)
    assert [len(joined) for joined in closed_batch.joined] == [1, 1, 1, 1]


def first_tokens(scheduler: Scheduler, asked: list[Request]) -> list[int]:
    """Submit all of them; the list tells, as it fills, in which order they got their first tokens."""
    order: list[int] = []
    for number, one in enumerate(asked):
        one.publish = partial(_note_first, one, number, order, one.publish)  # type: ignore[method-assign]
        scheduler.submit(one)
    return order


def _note_first(one: Request, number: int, order: list[int], publish: Callable[[], None]) -> None:
    if one.is_unheard and one.token_ids:
        order.append(number)
    publish()


def test_short_requests_pass_a_long_one_that_does_not_fit_yet(
    stopped: Scheduler, closed_batch: ScriptedBatch
) -> None:
    """1,000 columns: 600 beside the running 53 are too many, and three slots are free meanwhile."""
    asked = [request(prompt_length=598), request(), request(), request()]
    order = first_tokens(stopped, asked)
    closed_batch.gate.release(10_000)
    for one in asked:
        read(one)
    assert order == [1, 2, 3, 0]


def test_a_long_request_is_passed_only_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.scheduler.MOST_PASSED", 5)
    batch = ScriptedBatch(is_open=False)
    scheduler = Scheduler(batch, replace(SETTINGS, slots=2, max_waiting=30))  # type: ignore[arg-type]
    scheduler.submit(request(max_tokens=50))
    assert batch.has_joined.acquire(timeout=10)
    asked = [request(), request(prompt_length=598), *(request() for _ in range(20))]
    order = first_tokens(scheduler, asked)
    batch.gate.release(10_000)
    for one in asked:
        read(one)
    scheduler.close()
    assert order == [0, 2, 3, 4, 5, 6, 1, *range(7, 22)]


def test_one_that_is_larger_than_the_cache_may_try_alone() -> None:
    batch = ScriptedBatch()
    scheduler = Scheduler(batch, SETTINGS)  # type: ignore[arg-type]
    asked = request(prompt_length=5000)
    scheduler.submit(asked)
    assert read(asked) == [7, 7]
    scheduler.close()


def test_background_work_is_parked_when_people_need_its_slots_and_goes_on_later() -> None:
    batch = ScriptedBatch(is_open=False)
    scheduler = Scheduler(batch, replace(SETTINGS, background_slots=4, background_beside=2))  # type: ignore[arg-type]
    background = [request(max_tokens=6, background=True) for _ in range(4)]
    for one in background:
        scheduler.submit(one)
    assert batch.has_joined.acquire(timeout=10)
    batch.gate.release(2)
    wait_until(lambda: min(len(one.token_ids) for one in background) >= 1)
    people = [request(max_tokens=2) for _ in range(4)]
    for one in people:
        scheduler.submit(one)
    batch.gate.release(10_000)
    assert [read(one) for one in people] == [[7, 7]] * 4
    assert [read(one) for one in background] == [[7] * 6] * 4
    assert {one for parked in batch.parked for one in parked} <= set(background)
    assert len(batch.parked[0]) >= 1
    scheduler.close()


def test_the_place_in_the_queue_is_known_until_it_is_served(
    stopped: Scheduler, closed_batch: ScriptedBatch
) -> None:
    asked = [request() for _ in range(3)]
    for one in asked:
        stopped.submit(one)
    assert [stopped.place_of(one) for one in asked] == [1, 2, 3]
    closed_batch.gate.release(10_000)
    read(asked[0])
    assert stopped.place_of(asked[0]) is None


def test_one_that_is_cancelled_while_it_waits_leaves_the_queue(
    stopped: Scheduler, closed_batch: ScriptedBatch
) -> None:
    waiting = [request(prompt_length=990), request(prompt_length=990)]
    for one in waiting:
        stopped.submit(one)
    waiting[1].is_cancelled = True
    closed_batch.gate.release(2)
    assert read(waiting[1]) == []
    assert waiting[1].finish_reason == "cancelled"
    assert stopped.place_of(waiting[0]) == 1


def test_a_full_queue_says_so(stopped: Scheduler) -> None:
    for _ in range(4):
        stopped.submit(request())
    with pytest.raises(Busy, match="4 requests wait for an answer"):
        stopped.submit(request())
    stopped.submit(request(background=True))


def test_a_cancelled_request_ends_at_the_next_step(closed_batch: ScriptedBatch) -> None:
    scheduler = Scheduler(closed_batch, SETTINGS)  # type: ignore[arg-type]
    asked = request(max_tokens=1000)
    scheduler.submit(asked)
    assert closed_batch.has_joined.acquire(timeout=10)
    asked.is_cancelled = True
    closed_batch.gate.release(1)  # the step it is in
    assert read(asked) == [7]
    assert asked.finish_reason == "cancelled"
    scheduler.close()


def test_an_error_reaches_every_caller_and_the_next_request_is_served(
    stopped: Scheduler, closed_batch: ScriptedBatch, caplog: pytest.LogCaptureFixture
) -> None:
    stopped.open("v1")
    asked = [request() for _ in range(3)]
    for one in asked:
        stopped.submit(one)
    closed_batch.gate.release(1)
    assert closed_batch.has_joined.acquire(timeout=10)
    closed_batch.error = RuntimeError("out of memory")
    with caplog.at_level(logging.CRITICAL, logger="serving.scheduler"):
        closed_batch.gate.release(10_000)
        for one in asked:
            with pytest.raises(HeedError, match="policy v1 failed while answering: out of memory"):
                read(one)
    later = request()
    stopped.submit(later)
    assert read(later) == [7, 7]
    wait_until(lambda: stopped.counter("v1").finished == 1)
    assert stopped.counter("v1").failed == 4  # the long one was in that batch too


def test_an_answer_that_was_complete_before_the_error_is_still_delivered() -> None:
    """The failing step may have drawn somebody's last token already; that reader must not wait for ever."""
    batch = ScriptedBatch()
    scheduler = Scheduler(batch, SETTINGS)  # type: ignore[arg-type]
    complete = request(max_tokens=1)

    def draw_then_break(newcomers: list[Request]) -> None:
        newcomers[0].add(7, -0.5, frozenset())
        raise RuntimeError("out of memory")

    batch.admit = draw_then_break  # type: ignore[method-assign]
    scheduler.submit(complete)
    assert read(complete) == [7]
    assert complete.finish_reason == "length"
    scheduler.close()


def test_an_answer_of_nan_is_an_error() -> None:
    batch = ScriptedBatch(is_open=False)
    scheduler = Scheduler(batch, SETTINGS)  # type: ignore[arg-type]
    asked = request(max_tokens=5)
    asked.add(7, float("nan"), frozenset())
    batch.step = lambda: None  # type: ignore[method-assign]
    scheduler.submit(asked)
    batch.gate.release(10)
    with pytest.raises(HeedError, match="are not numbers"):
        read(asked)
    scheduler.close()


def test_draining_a_version_waits_for_its_last_answer_and_for_nobody_else(
    stopped: Scheduler, closed_batch: ScriptedBatch
) -> None:
    """`stopped` holds a long request of v1: v2 may leave while it runs."""
    asked, own_scoring = request(version="v2"), scoring(version="v2")
    stopped.submit(asked)
    stopped.submit_scoring(own_scoring)
    draining = threading.Thread(target=stopped.drain, args=("v2",))
    draining.start()
    wait_until(lambda: refuses(stopped, "v2"))
    with pytest.raises(StateConflict, match="policy v2 is being unloaded"):
        stopped.submit(request(version="v2"))
    stopped.submit(request())
    assert draining.is_alive()
    closed_batch.gate.release(5)
    draining.join(timeout=10)
    assert not draining.is_alive()
    assert read(asked) == [7, 7]
    assert own_scoring.logprob_sum.done()


def refuses(scheduler: Scheduler, version: str) -> bool:
    try:
        scheduler.submit_scoring(scoring(version=version))
    except StateConflict:
        return True
    return False


def test_the_figures_say_what_was_answered() -> None:
    batch = ScriptedBatch()
    scheduler = Scheduler(batch, SETTINGS)  # type: ignore[arg-type]
    for version in ("v1", "v2"):
        scheduler.open(version)
    asked = [request(max_tokens=3), request(max_tokens=5, version="v2"), request(background=True)]
    for one in asked:
        scheduler.submit(one)
    for one in asked:
        read(one)
    load = scheduler.count()
    first, second = (scheduler.counter(version).read(version, load, 0) for version in ("v1", "v2"))
    assert (first.tokens, first.finished, second.tokens, second.finished) == (5, 2, 5, 1)
    assert (sum(first.first_token_counts), sum(second.first_token_counts)) == (1, 1)
    assert first.tokens_per_s > 0
    scheduler.close()


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"max_waiting": -1}, {"stream_s": 5.0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BatchSettings(**wrong)  # type: ignore[arg-type]


def scoring(num_tokens: int = 5, version: str = "v1") -> Scoring:
    return Scoring(version, [1] * 3, [2] * (num_tokens - 3))


def test_waiting_answers_are_scored_together_as_far_as_the_limit_goes() -> None:
    batch = ScriptedBatch(is_open=False)
    scheduler = Scheduler(batch, replace(SETTINGS, score_tokens=10))  # type: ignore[arg-type]
    scheduler.submit(request(max_tokens=2, background=True))
    assert batch.has_joined.acquire(timeout=10)
    waiting = [scoring(5), scoring(5), scoring(4), scoring(30)]
    for one in waiting:
        scheduler.submit_scoring(one)
    batch.gate.release(10_000)
    assert [one.logprob_sum.result(10) for one in waiting] == [-2.0, -2.0, -1.0, -27.0]
    scheduler.close()
    assert batch.scored == [waiting[:2], waiting[2:3], waiting[3:]]


def test_while_people_are_answered_one_answer_is_scored_a_step(
    stopped: Scheduler, closed_batch: ScriptedBatch
) -> None:
    waiting = [scoring() for _ in range(3)]
    for one in waiting:
        stopped.submit_scoring(one)
    closed_batch.gate.release(10_000)
    for one in waiting:
        one.logprob_sum.result(10)
    assert closed_batch.scored == [[one] for one in waiting]


def test_an_error_while_scoring_reaches_whoever_waits_and_no_answer(
    stopped: Scheduler, closed_batch: ScriptedBatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def score(self, _rows: object) -> list[float]:
            raise RuntimeError("out of memory")

    closed_batch.score = Broken().score  # type: ignore[method-assign,assignment]
    asked, broken = request(), scoring()
    stopped.submit(asked)
    stopped.submit_scoring(broken)
    closed_batch.gate.release(10_000)
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(HeedError, match="v1 failed while scoring: out"),
    ):
        broken.logprob_sum.result(10)
    assert read(asked) == [7, 7]
    assert "failed to score 1 answers" in caplog.text


def test_answers_of_two_versions_are_not_scored_in_one_pass() -> None:
    batch = ScriptedBatch(is_open=False)
    scheduler = Scheduler(batch, SETTINGS)  # type: ignore[arg-type]
    scheduler.submit(request(max_tokens=2, background=True))
    assert batch.has_joined.acquire(timeout=10)
    waiting = [scoring(), scoring(), scoring(version="v2")]
    for one in waiting:
        scheduler.submit_scoring(one)
    batch.gate.release(10_000)
    for one in waiting:
        one.logprob_sum.result(10)
    assert batch.scored == [waiting[:2], waiting[2:]]
    scheduler.close()


def test_closing_cancels_what_waits(stopped: Scheduler, closed_batch: ScriptedBatch) -> None:
    waiting, unscored = request(), scoring()
    stopped.submit(waiting)
    stopped.submit_scoring(unscored)
    closing = threading.Thread(target=stopped.close)
    closing.start()
    wait_until(lambda: refuses(stopped, "v1"))
    closed_batch.gate.release(10_000)
    closing.join(10)
    assert read(waiting) == []
    assert unscored.logprob_sum.cancelled()
