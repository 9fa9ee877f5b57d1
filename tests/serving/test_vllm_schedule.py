"""What becomes of a request between us and a vLLM server, over a pool whose servers are scripted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import pytest

from serving.request import Request
from serving.settings import BatchSettings
from serving.vllm_client import Piece, Refused, Written
from serving.vllm_pool import Replica
from serving.vllm_schedule import Scoring, VllmScheduler
from store.errors import Busy
from store.records import Sampling
from tests.serving.fakes import wait_until


class ScriptedClient:
    """Writes one token after the other; `breaks` ends the first answer with an error event."""

    url = "http://scripted"

    def __init__(self, breaks: Refused | None = None) -> None:
        self.breaks = breaks
        self.num_asked = 0

    async def write(self, *_given: Any, **_options: Any) -> AsyncGenerator[Piece]:
        self.num_asked += 1
        yield Piece((Written(7, -0.5, ()),), None)
        if self.breaks is not None and self.num_asked == 1:
            raise self.breaks
        yield Piece((Written(8, -0.5, ()),), "stop")


class ScriptedPool:
    """One server that is always up."""

    num_up = 1

    def __init__(self, breaks: Refused | None = None) -> None:
        self.replica = Replica(ScriptedClient(breaks))  # type: ignore[arg-type]
        self.lost: list[str] = []

    def pick(self) -> Replica:
        return self.replica

    def lose(self, _replica: Replica, problem: str) -> None:
        self.lost.append(problem)


def build(loop: asyncio.AbstractEventLoop, pool: ScriptedPool) -> VllmScheduler:
    scheduler = VllmScheduler(loop, pool, BatchSettings(), frozenset((0,)), lambda _: None)  # type: ignore[arg-type]
    scheduler.open("v1")
    return scheduler


def request() -> Request:
    return Request("v1", [1, 2], Sampling(), 5)


def read(asked: Request) -> Sequence[object]:
    """All that its reader was told; the end must be among it."""
    told = [asked.updates.get(timeout=10)]
    while told[-1] is not None and not isinstance(told[-1], Exception):
        told.append(asked.updates.get(timeout=10))
    return told


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_closing_ends_what_was_submitted_while_the_loop_was_busy(loop: asyncio.AbstractEventLoop) -> None:
    """The request was started and cancelled before its first step, and the close waited for it for ever."""
    pool, is_busy = ScriptedPool(), threading.Event()
    scheduler = build(loop, pool)
    loop.call_soon_threadsafe(is_busy.wait)
    asked, scoring = request(), Scoring("v1", [1, 2], [3])
    scheduler.submit(asked)
    scheduler.submit(scoring)
    closing = threading.Thread(target=scheduler.close, daemon=True)
    closing.start()
    wait_until(lambda: asked.is_cancelled and scoring.is_cancelled)
    is_busy.set()
    assert read(asked) == [None]
    closing.join(timeout=10)
    assert not closing.is_alive()
    assert pool.replica.client.num_asked == 0  # type: ignore[attr-defined]


def test_one_that_is_cancelled_before_its_first_step_is_told_its_end() -> None:
    asked = request()

    async def cancel_between_start_and_step() -> None:
        loop = asyncio.get_running_loop()
        scheduler = build(loop, ScriptedPool())
        scheduler.submit(asked)  # the loop starts it, then does this, then lets it take its first step
        loop.call_soon(setattr, asked, "is_cancelled", True)
        loop.call_soon(scheduler._drop_cancelled)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not any(sum(counted.values()) for counted in scheduler.count())

    asyncio.run(cancel_between_start_and_step())
    assert read(asked) == [None]
    assert asked.finish_reason == "cancelled"


@pytest.mark.parametrize("status", [404, 503])
def test_an_error_after_the_first_word_ends_the_answer_and_nothing_is_said_twice(
    loop: asyncio.AbstractEventLoop, status: int
) -> None:
    """Before the first word another server takes it; after it the reader would get the beginning again."""
    pool = ScriptedPool(Refused(status, "the adapter is gone"))
    scheduler, asked = build(loop, pool), request()
    scheduler.submit(asked)
    *told, end = read(asked)
    assert told == [(7,)]
    assert isinstance(end, Busy)
    assert "was lost while it answered: the adapter is gone" in str(end)
    assert pool.lost == ["the adapter is gone"]
    scheduler.close()
