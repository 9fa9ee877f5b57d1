"""Continuous batching of one version in its own thread: who gets a slot and when tokens are handed out.

The same thread scores finished answers between two steps, so the model is never called twice at once. Knows
no tokenizer and no adapter. An error reaches every caller it hits, and the thread lives on for the next.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sized
from dataclasses import dataclass

from serving.batching import DecodeBatch, Request
from serving.scoring import Scoring
from store.errors import Busy, HeedError, StateConflict

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """Slots decode together; background work (rollouts) may hold at most `background_slots` of them.

    `max_waiting` bounds each queue, `prefill_tokens` how much prompt and `score_tokens` how much scored text
    may hold up the running rows at once, and `stream_s` is the shortest time between two chunks of an answer.
    """

    slots: int = 16
    background_slots: int = 12
    max_waiting: int = 256
    prefill_tokens: int = 4096
    score_tokens: int = 1024
    stream_s: float = 0.02

    def __post_init__(self) -> None:
        for name in ("slots", "background_slots", "max_waiting", "prefill_tokens", "score_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if not 0.0 <= self.stream_s <= 1.0:
            raise ValueError(f"stream_s {self.stream_s} is outside 0..1")


class Scheduler:
    """Serves the requests of one version until closed."""

    def __init__(self, version: str, batch: DecodeBatch, settings: BatchSettings) -> None:
        self._version = version
        self._batch = batch
        self._settings = settings
        self._people: deque[Request] = deque()
        self._background: deque[Request] = deque()
        self._scorings: deque[Scoring] = deque()
        self._in_flight: list[Request] = []
        self.is_closing = False
        self._published_at = 0.0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"decode-{version}", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue a request. Busy when the queue is full, StateConflict when the version is leaving."""
        queue = self._background if request.background else self._people
        with self._changed:
            self._check_room(queue)
            queue.append(request)
            self._changed.notify()

    def submit_scoring(self, scoring: Scoring) -> None:
        """Queue an answer to be scored in the background. Raises as `submit`."""
        with self._changed:
            self._check_room(self._scorings)
            self._scorings.append(scoring)
            self._changed.notify()

    def num_in_flight(self) -> int:
        """Requests that wait or run."""
        with self._changed:
            return len(self._people) + len(self._background) + len(self._scorings) + len(self._in_flight)

    def close(self, cancel: bool = False) -> None:
        """Take nothing new, wait until everything taken is answered (or `cancel` it), and end the thread."""
        with self._changed:
            self.is_closing = True
            for request in (*self._people, *self._background, *self._in_flight) if cancel else ():
                request.is_cancelled = True
            for scoring in self._scorings if cancel else ():
                scoring.logprob_sum.cancel()
            self._changed.notify()
        self._thread.join()

    def _check_room(self, queue: Sized) -> None:
        if self.is_closing:
            raise StateConflict(f"policy {self._version} is being unloaded and takes no new requests")
        if len(queue) >= self._settings.max_waiting:
            raise Busy(f"{len(queue)} requests wait for policy {self._version}; try again shortly")

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._turn()
            except Exception as error:
                logger.exception("policy %s failed with %d in flight", self._version, len(self._in_flight))
                self._fail(error)

    def _wait_for_work(self) -> bool:
        """Block until there is something to do; False when closing and done."""
        with self._changed:
            while not (self._people or self._background or self._scorings or self._in_flight):
                if self.is_closing:
                    return False
                self._changed.wait()
        return True

    def _turn(self) -> None:
        """Between two steps rows come and go; then every running row gets one more token."""
        self._cancel()
        newcomers = self._admit()
        if newcomers:
            self._batch.join(newcomers)
        elif self._batch.requests:
            self._batch.step()
        self._refuse_nonsense()
        self._deliver()
        self._score()

    def _cancel(self) -> None:
        for request in self._in_flight:
            if request.is_cancelled:
                request.finish_reason = "cancelled"
        self._batch.drop_finished()

    def _admit(self) -> list[Request]:
        """Fill free slots, people first; background work only when nobody waits."""
        newcomers: list[Request] = []
        with self._changed:
            free = self._settings.slots - len(self._batch.requests)
            self._take(self._people, free, newcomers)
            if not self._people:
                running = sum(request.background for request in self._batch.requests)
                room = min(free - len(newcomers), self._settings.background_slots - running)
                self._take(self._background, room, newcomers)
        return newcomers

    def _take(self, queue: deque[Request], room: int, newcomers: list[Request]) -> None:
        """Move up to `room` requests out of a queue, as long as their prompts fit one prefill."""
        taken = 0
        while queue and taken < room:
            width = max(len(request.prompt_ids) for request in (queue[0], *newcomers))
            if newcomers and width * (len(newcomers) + 1) > self._settings.prefill_tokens:
                return
            request = queue.popleft()
            self._in_flight.append(request)
            if request.is_cancelled:
                request.finish_reason = "cancelled"
                continue
            newcomers.append(request)
            taken += 1

    def _score(self) -> None:
        """Score what waits: as much as `score_tokens` allows, or one answer while people are answered."""
        rows = [row for row in self._take_scorings() if row.logprob_sum.set_running_or_notify_cancel()]
        if not rows:
            return
        try:
            sums = self._batch.score(rows)
        except Exception as error:
            # It must not end the answers in flight, and whoever waits for the sums has to hear of it.
            logger.exception("policy %s failed to score %d answers", self._version, len(rows))
            for row in rows:
                row.logprob_sum.set_exception(
                    HeedError(f"policy {self._version} failed while scoring: {error}")
                )
            return
        for row, logprob_sum in zip(rows, sums, strict=True):
            row.logprob_sum.set_result(logprob_sum)

    def _take_scorings(self) -> list[Scoring]:
        taken: list[Scoring] = []
        with self._changed:
            answers_people = bool(self._people) or any(not request.background for request in self._in_flight)
            most = 1 if answers_people else len(self._scorings)
            while self._scorings and len(taken) < most:
                width = max(row.num_tokens for row in (self._scorings[0], *taken))
                if taken and width * (len(taken) + 1) > self._settings.score_tokens:
                    break
                taken.append(self._scorings.popleft())
        return taken

    def _refuse_nonsense(self) -> None:
        """A model that yields NaN must not look as if it had answered."""
        says = f"policy {self._version} computed probabilities that are not numbers"
        for request in self._in_flight:
            if not math.isfinite(request.logprob_sum):
                request.error = HeedError(says)
        self._batch.drop_finished()

    def _deliver(self) -> None:
        """Wake readers: at once for a first token or an end, else every `stream_s`; background at the end."""
        now = time.monotonic()
        is_due = now - self._published_at >= self._settings.stream_s
        if is_due:
            self._published_at = now
        for request in self._in_flight:
            if request.has_finished or (not request.background and (is_due or request.is_unheard)):
                request.publish()
        with self._changed:
            self._in_flight = [request for request in self._in_flight if not request.has_finished]

    def _fail(self, error: Exception) -> None:
        """End everything in flight with the error. The batch may be half-built, so it is emptied."""
        for request in self._in_flight:
            if not request.has_finished:
                request.error = HeedError(f"policy {self._version} failed while answering: {error}")
            request.publish()
        self._batch.clear()
        with self._changed:
            self._in_flight = []
