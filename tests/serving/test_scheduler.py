"""Who gets a slot and when, without a model: the batch is scripted and the test opens its gate."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from serving.batching import Request
from serving.scheduler import BatchSettings, Scheduler
from serving.scoring import Scoring
from store.errors import Busy, HeedError, StateConflict
from store.records import Sampling
from tests.serving.fakes import ScriptedBatch, wait_until

SETTINGS = BatchSettings(slots=4, background_slots=2, max_waiting=4, prefill_tokens=100, stream_s=0.0)


def request(max_tokens: int = 2, background: bool = False, prompt_length: int = 3) -> Request:
    return Request([1] * prompt_length, Sampling(), max_tokens, background)


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
    scheduler = Scheduler("v1", closed_batch, SETTINGS)  # type: ignore[arg-type]
    scheduler.submit(request(max_tokens=50))
    assert closed_batch.has_joined.acquire(timeout=10)
    yield scheduler
    closed_batch.gate.release(10_000)
    scheduler.close(cancel=True)


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


def test_background_work_never_holds_more_than_its_slots(
    stopped: Scheduler, closed_batch: ScriptedBatch
) -> None:
    background = [request(background=True) for _ in range(4)]
    for one in background:
        stopped.submit(one)
    closed_batch.gate.release(10_000)
    for one in background:
        read(one)
    assert [len(joined) for joined in closed_batch.joined] == [1, 2, 2]


def test_long_prompts_are_not_all_prefilled_at_once(stopped: Scheduler, closed_batch: ScriptedBatch) -> None:
    asked = [request(prompt_length=60) for _ in range(3)]
    for one in asked:
        stopped.submit(one)
    closed_batch.gate.release(10_000)
    for one in asked:
        read(one)
    assert [len(joined) for joined in closed_batch.joined] == [1, 1, 1, 1]


def test_a_full_queue_says_so(stopped: Scheduler) -> None:
    for _ in range(4):
        stopped.submit(request())
    with pytest.raises(Busy, match="4 requests wait for policy v1"):
        stopped.submit(request())
    stopped.submit(request(background=True))


def test_a_cancelled_request_ends_at_the_next_step(closed_batch: ScriptedBatch) -> None:
    scheduler = Scheduler("v1", closed_batch, SETTINGS)  # type: ignore[arg-type]
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


def test_an_answer_that_was_complete_before_the_error_is_still_delivered() -> None:
    """The failing step may have drawn somebody's last token already; that reader must not wait for ever."""
    batch = ScriptedBatch()
    scheduler = Scheduler("v1", batch, SETTINGS)  # type: ignore[arg-type]
    complete = request(max_tokens=1)

    def draw_then_break(newcomers: list[Request]) -> None:
        newcomers[0].add(7, -0.5, frozenset())
        raise RuntimeError("out of memory")

    batch.join = draw_then_break  # type: ignore[method-assign]
    scheduler.submit(complete)
    assert read(complete) == [7]
    assert complete.finish_reason == "length"
    scheduler.close()


def test_an_answer_of_nan_is_an_error() -> None:
    batch = ScriptedBatch(is_open=False)
    scheduler = Scheduler("v1", batch, SETTINGS)  # type: ignore[arg-type]
    asked = request(max_tokens=5)
    asked.logprob_sum = float("nan")
    scheduler.submit(asked)
    batch.gate.release(10)
    with pytest.raises(HeedError, match="are not numbers"):
        read(asked)
    scheduler.close()


def test_closing_waits_for_the_last_answer_and_refuses_new_ones(
    stopped: Scheduler, closed_batch: ScriptedBatch
) -> None:
    asked = request()
    stopped.submit(asked)
    closing = threading.Thread(target=stopped.close)
    closing.start()
    wait_until(lambda: stopped.is_closing)
    with pytest.raises(StateConflict, match="policy v1 is being unloaded"):
        stopped.submit(request())
    assert closing.is_alive()
    closed_batch.gate.release(10_000)
    closing.join(timeout=10)
    assert not closing.is_alive()
    assert read(asked) == [7, 7]


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"max_waiting": -1}, {"stream_s": 5.0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BatchSettings(**wrong)  # type: ignore[arg-type]


def scoring(num_tokens: int = 5) -> Scoring:
    return Scoring([1] * 3, [2] * (num_tokens - 3))


def test_waiting_answers_are_scored_together_as_far_as_the_limit_goes() -> None:
    batch = ScriptedBatch(is_open=False)
    scheduler = Scheduler("v1", batch, replace(SETTINGS, score_tokens=10))  # type: ignore[arg-type]
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


def test_closing_scores_what_was_taken_and_cancelling_does_not() -> None:
    for is_cancelled in (False, True):
        batch = ScriptedBatch(is_open=False)
        scheduler = Scheduler("v1", batch, SETTINGS)  # type: ignore[arg-type]
        scheduler.submit(request(background=True))
        assert batch.has_joined.acquire(timeout=10)
        waiting = scoring()
        scheduler.submit_scoring(waiting)
        closing = threading.Thread(target=scheduler.close, args=(is_cancelled,))
        closing.start()
        wait_until(lambda s=scheduler: s.is_closing)  # type: ignore[misc]
        with pytest.raises(StateConflict, match="unloaded"):
            scheduler.submit_scoring(scoring())
        batch.gate.release(10_000)
        closing.join(10)
        assert waiting.logprob_sum.cancelled() is is_cancelled
