"""Who is sent to vLLM and when: people first, background work in what they leave, never more than the slots.

Requests are queued from any thread and answered in one event loop. vLLM batches what it is sent; a queue of
our own is kept because its order, its bound and its places are what people are told.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Sized
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from serving.counting import Load, VersionCounter, count_load
from serving.request import Request
from serving.settings import BatchSettings
from serving.vllm_client import Refused, ReplicaLost
from serving.vllm_pool import Replica, VllmPool
from store.errors import Busy, HeedError, StateConflict

logger = logging.getLogger(__name__)

CANCEL_S = 0.1  # how often requests that get no token are asked whether they are still wanted
BACKGROUND_PRIORITY = 1  # vLLM takes lower ones first; people have 0


@dataclass(slots=True, eq=False)
class Scoring:
    """One answer to be scored: the sum of its log-probs is to come."""

    version: str
    prompt_ids: Sequence[int]
    answer_ids: Sequence[int]
    logprob_sum: Future[float] = field(default_factory=Future)

    @property
    def background(self) -> bool:
        return True

    @property
    def is_cancelled(self) -> bool:
        return self.logprob_sum.cancelled()


Work = Request | Scoring


class VllmScheduler:
    """Sends the requests of every version. What is private runs in `loop`, the rest in any thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: VllmPool,
        settings: BatchSettings,
        end_ids: frozenset[int],
        name_of: Callable[[str], str | None],
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._settings = settings
        self._end_ids = end_ids
        self._name_of = name_of
        self._people: deque[Request] = deque()
        self._background: deque[Work] = deque()
        self._in_flight: dict[Work, asyncio.Task[HeedError | None]] = {}
        self._counters: dict[str, VersionCounter] = {}
        self._leaving: set[str] = set()
        self._is_closing = False
        self._changed = threading.Condition()  # guards all of the above

    def open(self, version: str) -> None:
        """Take requests for a version from now on."""
        with self._changed:
            self._leaving.discard(version)
            self._counters[version] = VersionCounter()

    def submit(self, work: Work, *more: Scoring) -> None:
        """Queue it. Busy when the queue is full, StateConflict when its version is leaving."""
        self._pool.pick()  # nobody should wait for servers that are all away
        with self._changed:
            queue: deque[Any] = self._background if work.background else self._people
            self._check_room(queue, work.version)
            queue.extend((work, *more))
            self._loop.call_soon_threadsafe(self._admit)  # under the lock, so that the loop is still open

    def place_of(self, request: Request) -> int | None:
        """How many are served before this request, itself included; None once it is being answered."""
        with self._changed:
            queue: Iterable[Work] = self._background if request.background else self._people
            return next((place for place, other in enumerate(queue, start=1) if other is request), None)

    def drain(self, version: str) -> None:
        """Take nothing new for a version and wait until everything taken is answered."""
        with self._changed:
            self._leaving.add(version)
            self._changed.wait_for(lambda: not self._holds(version))
            self._counters.pop(version, None)

    def count(self) -> Load:
        """Waiting and running requests by version."""
        with self._changed:
            return count_load(self._people, self._background, self._in_flight)

    def counter(self, version: str) -> VersionCounter:
        """The figures of a version; an empty one when it has just left."""
        return self._counters.get(version) or VersionCounter()

    def close(self) -> None:
        """Take nothing new and cancel everything; returns when all of it has ended."""
        with self._changed:
            self._is_closing = True
            for work in (*self._people, *self._background, *self._in_flight):
                _cancel(work)
        self._loop.call_soon_threadsafe(self._drop_cancelled)
        with self._changed:
            self._changed.wait_for(lambda: not (self._people or self._background or self._in_flight))

    async def keep_dropping(self) -> None:
        """Let go of what nobody wants any more; never returns."""
        while True:
            await asyncio.sleep(CANCEL_S)
            self._drop_cancelled()

    def _check_room(self, queue: Sized, version: str) -> None:
        if self._is_closing or version in self._leaving:
            raise StateConflict(f"policy {version} is being unloaded and takes no new requests")
        if len(queue) >= self._settings.max_waiting:
            raise Busy(f"{len(queue)} requests wait for an answer; try again shortly")

    def _holds(self, version: str) -> bool:
        return any(work.version == version for work in (*self._people, *self._background, *self._in_flight))

    def _drop_cancelled(self) -> None:
        with self._changed:
            for queue in (self._people, self._background):
                for work in [work for work in queue if work.is_cancelled]:
                    queue.remove(work)  # type: ignore[arg-type]
                    self._end(work)
            for work, task in self._in_flight.items():
                if work.is_cancelled:
                    task.cancel()
            self._changed.notify_all()
        self._admit()

    def _admit(self) -> None:
        """Start what there are slots for, people first."""
        with self._changed:
            if not self._pool.num_up:
                self._turn_away()
                return
            free = self._settings.slots * self._pool.num_up - len(self._in_flight)
            free -= self._start(self._people, free)
            own = sum(work.background for work in self._in_flight)
            answers_people = len(self._in_flight) > own
            settings = self._settings
            most = settings.background_beside if answers_people else settings.background_slots
            self._start(self._background, min(free, most * self._pool.num_up - own))

    def _start(self, queue: deque[Request] | deque[Work], room: int) -> int:
        started = 0
        while queue and started < room:
            work = queue.popleft()
            if work.is_cancelled:
                self._end(work)
                self._changed.notify_all()
                continue
            task = self._in_flight[work] = self._loop.create_task(self._run(work))
            task.add_done_callback(partial(self._finish, work))
            started += 1
        return started

    def _turn_away(self) -> None:
        """Every server is away: whoever waits is told so, rather than left waiting."""
        try:
            self._pool.pick()
        except Busy as error:
            for queue in (self._people, self._background):
                while queue:
                    self._end(queue.popleft(), error)
            self._changed.notify_all()

    async def _run(self, work: Work) -> HeedError | None:
        """Do it; returns what went wrong."""
        try:
            await (self._score(work) if isinstance(work, Scoring) else self._answer(work))
        except HeedError as known:
            return known
        except Exception as unknown:
            logger.exception("a request to policy %s failed", work.version)
            return HeedError(f"policy {work.version} failed while answering: {unknown}")
        return None

    def _finish(self, work: Work, task: asyncio.Task[HeedError | None]) -> None:
        # Not at the end of `_run`: a task that is cancelled before its first step never enters that.
        error = None if task.cancelled() else task.result()
        with self._changed:
            del self._in_flight[work]
            self._end(work, error)
            self._changed.notify_all()
        self._admit()

    def _end(self, work: Work, error: HeedError | None = None) -> None:
        """Tell whoever waits that it is over, and count it."""
        counter = self.counter(work.version)
        if isinstance(work, Scoring):
            if error is None:
                work.logprob_sum.cancel()  # no effect on one that has its sum
            elif not work.logprob_sum.done():
                work.logprob_sum.set_exception(error)
            return
        work.error = error
        if error is None and work.finish_reason is None:
            work.finish_reason = work.ends_as
        counter.failed += error is not None
        counter.cancelled += work.finish_reason == "cancelled"
        counter.finished += error is None and work.finish_reason != "cancelled"
        work.publish()

    async def _answer(self, request: Request) -> None:
        """On the freest server; on another one when that is lost before it wrote anything."""
        while not request.has_finished and not request.is_cancelled:
            replica = self._pool.pick()
            try:
                with replica.holding():
                    await self._write(request, replica)
            except ReplicaLost as error:
                self._pool.lose(replica, str(error))
                self._refuse_half(request, replica, error)
            except Refused as error:
                self._judge_refusal(error, replica, request.version)
                self._refuse_half(request, replica, error)

    def _refuse_half(self, request: Request, replica: Replica, error: Exception) -> None:
        """Another server would begin anew, behind the words the reader already has."""
        if request.token_ids:
            raise Busy(f"vLLM at {replica.client.url} was lost while it answered: {error}") from error

    async def _write(self, request: Request, replica: Replica) -> None:
        now = published_at = time.monotonic()
        pieces = replica.client.write(
            self._name_of(request.version) or replica.base_name,
            request.prompt_ids,
            request.sampling,
            request.max_tokens,
            sorted(self._end_ids),
            top_logprobs=request.top_logprobs or 0,
            priority=self._priority(request, replica),
        )
        counter = self.counter(request.version)
        async with aclosing(pieces):
            async for piece in pieces:
                now = time.monotonic()
                if not request.token_ids and piece.tokens:
                    counter.add_first_token(now - request.submitted_at)
                for token in piece.tokens:
                    request.add(token.token_id, token.logprob, self._end_ids, token.top)
                counter.add_tokens(len(piece.tokens), now)
                if request.finish_reason is None and piece.finish_reason is not None:
                    request.finish_reason = "stop" if piece.finish_reason == "stop" else "length"
                if request.has_finished or request.is_cancelled:
                    return
                if request.is_unheard or (
                    not request.background and now - published_at >= self._settings.stream_s
                ):
                    published_at = now
                    request.publish()
        raise ReplicaLost("an answer ended without saying why")

    async def _score(self, scoring: Scoring) -> None:
        while not scoring.logprob_sum.done():
            replica = self._pool.pick()
            try:
                with replica.holding():
                    total = await replica.client.score(
                        self._name_of(scoring.version) or replica.base_name,
                        scoring.prompt_ids,
                        scoring.answer_ids,
                        self._priority(scoring, replica),
                    )
            except ReplicaLost as error:
                self._pool.lose(replica, str(error))
            except Refused as error:
                self._judge_refusal(error, replica, scoring.version)
            else:
                if not scoring.is_cancelled:
                    scoring.logprob_sum.set_result(total)

    def _judge_refusal(self, error: Refused, replica: Replica, version: str) -> None:
        """Not knowing the name means that it was restarted since we looked; anything else is an answer."""
        if error.status != 404 and error.status != 503:
            raise HeedError(f"vLLM at {replica.client.url} refused a request to policy {version}: {error}")
        self._pool.lose(replica, str(error))

    def _priority(self, work: Work, replica: Replica) -> int:
        return BACKGROUND_PRIORITY if work.background and replica.has_priorities else 0


def _cancel(work: Work) -> None:
    if isinstance(work, Scoring):
        work.logprob_sum.cancel()
    else:
        work.is_cancelled = True
