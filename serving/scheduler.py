"""Continuous batching of all versions in one thread: who gets a slot and when tokens are handed out.

People come first: background work fills what they leave, and is parked (its cache given up, its tokens kept)
when they need the room. The same thread scores finished answers between two steps, so the model is never
called twice at once. An error reaches every caller it hits, and the thread lives on. Knows no tokenizer and
no adapter.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence, Sized

from serving.batching import DecodeBatch
from serving.counting import Load, VersionCounter, count_load
from serving.request import Request
from serving.scoring import Scoring
from serving.settings import BatchSettings
from store.errors import Busy, HeedError, StateConflict

logger = logging.getLogger(__name__)

MOST_PASSED = 32  # shorter requests that are served before one the cache has no room for yet


class Scheduler:
    """Serves the requests of every version until closed."""

    def __init__(self, batch: DecodeBatch, settings: BatchSettings) -> None:
        self._batch = batch
        self._settings = settings
        self._people: deque[Request] = deque()
        self._background: deque[Request] = deque()
        self._scorings: deque[Scoring] = deque()
        self._in_flight: list[Request] = []
        self._being_scored: list[Scoring] = []
        self._counters: dict[str, VersionCounter] = {}
        self._leaving: set[str] = set()
        self._is_closing = False
        self._published_at = 0.0
        self._changed = threading.Condition()  # guards all of the above but the batch
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    def open(self, version: str) -> None:
        """Take requests for a version from now on."""
        with self._changed:
            self._leaving.discard(version)
            self._counters[version] = VersionCounter()

    def submit(self, request: Request) -> None:
        """Queue a request. Busy when the queue is full, StateConflict when its version is leaving."""
        queue = self._background if request.background else self._people
        with self._changed:
            self._check_room(queue, request.version)
            queue.append(request)
            self._changed.notify_all()

    def submit_scoring(self, scoring: Scoring) -> None:
        """Queue an answer to be scored in the background. Raises as `submit`."""
        with self._changed:
            self._check_room(self._scorings, scoring.version)
            self._scorings.append(scoring)
            self._changed.notify_all()

    def place_of(self, request: Request) -> int | None:
        """How many are served before this request, itself included; None once it is being answered."""
        with self._changed:
            queue = self._background if request.background else self._people
            return next((place for place, other in enumerate(queue, start=1) if other is request), None)

    def drain(self, version: str) -> None:
        """Take nothing new for a version and wait until everything taken is answered."""
        with self._changed:
            self._leaving.add(version)
            self._changed.wait_for(lambda: self._is_closing or not self._holds(version))
            self._counters.pop(version, None)

    def close(self) -> None:
        """Cancel everything and end the thread."""
        with self._changed:
            self._is_closing = True
            for request in (*self._people, *self._background, *self._in_flight):
                request.is_cancelled = True
            for scoring in self._scorings:
                scoring.logprob_sum.cancel()
            self._changed.notify_all()
        self._thread.join()

    def count(self) -> Load:
        """Waiting and running requests by version."""
        with self._changed:
            return count_load(self._people, (*self._background, *self._scorings), self._in_flight)

    def count_parked(self) -> int:
        """How many background answers were begun and set aside for people."""
        with self._changed:
            return sum(1 for request in self._background if request.token_ids)

    def counter(self, version: str) -> VersionCounter:
        """The figures of a version; an empty one when it has just left."""
        return self._counters.get(version) or VersionCounter()

    def _check_room(self, queue: Sized, version: str) -> None:
        if self._is_closing or version in self._leaving:
            raise StateConflict(f"policy {version} is being unloaded and takes no new requests")
        if len(queue) >= self._settings.max_waiting:
            raise Busy(f"{len(queue)} requests wait for an answer; try again shortly")

    def _holds(self, version: str) -> bool:
        requests = (*self._people, *self._background, *self._in_flight)
        scorings = (*self._scorings, *self._being_scored)
        return version in {*(r.version for r in requests), *(s.version for s in scorings)}

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._turn()
            except Exception as error:
                logger.exception("the batch failed with %d in flight", len(self._in_flight))
                self._fail(error)

    def _wait_for_work(self) -> bool:
        """Block until there is something to do; False when closing and done."""
        with self._changed:
            while not (self._people or self._background or self._scorings or self._in_flight):
                if self._is_closing:
                    return False
                self._changed.wait()
        return True

    def _turn(self) -> None:
        """Between two steps rows come and go; then every running row gets one more token."""
        self._cancel()
        self._make_room()
        self._admit()
        self._batch.step()
        self._refuse_nonsense()
        self._deliver()
        self._score()

    def _cancel(self) -> None:
        with self._changed:
            for queue in (self._people, self._background):
                for request in [request for request in queue if request.is_cancelled]:
                    queue.remove(request)
                    self._in_flight.append(request)  # to be told its end like any other
        for request in self._in_flight:
            if request.is_cancelled and not request.has_finished:
                request.finish_reason = request.ends_as
        self._batch.drop_finished()

    def _make_room(self) -> None:
        """Park background rows that people need the room of, and all but a few beside people."""
        with self._changed:
            parked = self._find_surplus()
            self._background.extendleft(parked)
            self._in_flight = [request for request in self._in_flight if request not in parked]
        if parked:
            self._batch.park(parked)

    def _find_surplus(self) -> list[Request]:
        running = self._running()
        if not self._people and all(request.background for request in running):
            return []
        background = [request for request in self._batch.requests if request.background]
        missing = len(self._people) - (self._settings.slots - len(running))
        kept = min(self._settings.background_beside, max(0, len(background) - max(0, missing)))
        if self._people and self._people[0].most_columns > self._longest_beside(running):
            kept = 0
        # Those with the least to read again go.
        return sorted(background, key=lambda request: len(request.context_ids), reverse=True)[kept:]

    def _running(self) -> list[Request]:
        return [*self._batch.requests, *self._batch.reading]

    def _admit(self) -> None:
        """Fill free slots, people first; background work only when nobody waits."""
        newcomers: list[Request] = []
        with self._changed:
            running = self._running()
            free = self._settings.slots - len(running)
            self._take(self._people, free, running, newcomers)
            if not self._people:
                own = sum(request.background for request in running)
                answers_people = len(running) + len(newcomers) > own
                most = self._settings.background_beside if answers_people else self._settings.background_slots
                self._take(self._background, min(free - len(newcomers), most - own), running, newcomers)
        if newcomers:
            self._batch.admit(newcomers)

    def _take(
        self, queue: deque[Request], room: int, running: list[Request], newcomers: list[Request]
    ) -> None:
        """Move up to `room` requests out of a queue, as long as the cache holds them to their longest end.

        One that does not fit lets shorter ones pass, but no more than MOST_PASSED: then all wait for it.
        """
        waiting: list[Request] = []
        longest = self._longest_beside([*running, *newcomers])
        for request in [*queue]:
            if room <= 0 or not longest or any(other.num_passed >= MOST_PASSED for other in waiting):
                return
            if request.most_columns > longest:
                waiting.append(request)
                continue
            for other in waiting:
                other.num_passed += 1
            queue.remove(request)
            self._in_flight.append(request)
            newcomers.append(request)
            longest = self._longest_beside([*running, *newcomers])
            room -= 1

    def _longest_beside(self, rows: Sequence[Request]) -> int:
        """The most columns that one more may come to fill beside these rows; one alone always may try."""
        if not rows:
            return sys.maxsize
        longest = self._settings.cache_tokens // (len(rows) + 1)  # the cache is as wide as its longest row
        return longest if all(row.most_columns <= longest for row in rows) else 0

    def _score(self) -> None:
        """Score what waits: as much as `score_tokens` allows, or one answer while people are answered."""
        self._take_scorings()
        rows = [row for row in self._being_scored if row.logprob_sum.set_running_or_notify_cancel()]
        try:
            if rows:
                self._score_rows(rows)
        finally:
            with self._changed:
                self._being_scored = []
                self._changed.notify_all()

    def _score_rows(self, rows: Sequence[Scoring]) -> None:
        try:
            sums = self._batch.score(rows)
        except Exception as error:
            # It must not end the answers in flight, and whoever waits for the sums has to hear of it.
            version = rows[0].version
            logger.exception("policy %s failed to score %d answers", version, len(rows))
            for row in rows:
                row.logprob_sum.set_exception(HeedError(f"policy {version} failed while scoring: {error}"))
            return
        for row, logprob_sum in zip(rows, sums, strict=True):
            row.logprob_sum.set_result(logprob_sum)

    def _take_scorings(self) -> None:
        """Take the next ones of one version."""
        with self._changed:
            answers_people = bool(self._people) or any(not request.background for request in self._in_flight)
            most = 1 if answers_people else len(self._scorings)
            taken = self._being_scored
            while self._scorings and len(taken) < most:
                following = self._scorings[0]
                width = max(row.num_tokens for row in (following, *taken))
                if taken and width * (len(taken) + 1) > self._settings.score_tokens:
                    break
                if taken and following.version != taken[0].version:
                    break
                taken.append(self._scorings.popleft())

    def _refuse_nonsense(self) -> None:
        """A model that yields NaN must not look as if it had answered."""
        for request in self._in_flight:
            if request.logprobs and not math.isfinite(request.logprobs[-1]):
                says = f"policy {request.version} computed probabilities that are not numbers"
                request.error = HeedError(says)
        self._batch.drop_finished()

    def _deliver(self) -> None:
        """Wake readers: at once for a first token or an end, else every `stream_s`; background at the end."""
        now = time.monotonic()
        is_due = now - self._published_at >= self._settings.stream_s
        if is_due:
            self._published_at = now
        self._count_turn(now)
        for request in self._in_flight:
            if request.has_finished or (not request.background and (is_due or request.is_unheard)):
                request.publish()
        with self._changed:
            self._in_flight = [request for request in self._in_flight if not request.has_finished]
            self._changed.notify_all()

    def _count_turn(self, now: float) -> None:
        for request in self._in_flight:
            counter = self.counter(request.version)
            counter.add_tokens(request.count_new(), now)
            if request.is_unheard and request.token_ids and not request.background:
                counter.add_first_token(now - request.submitted_at)
            if request.error is not None:
                counter.failed += 1
            elif request.finish_reason == "cancelled":
                counter.cancelled += 1
            elif request.finish_reason is not None:
                counter.finished += 1

    def _fail(self, error: Exception) -> None:
        """End everything in flight with the error. The batch may be half-built, so it is emptied."""
        for request in self._in_flight:
            if not request.has_finished:
                request.error = HeedError(f"policy {request.version} failed while answering: {error}")
        self._count_turn(time.monotonic())
        for request in self._in_flight:
            request.publish()
        self._batch.clear()
        with self._changed:
            self._in_flight = []
            self._changed.notify_all()
