"""One answer while it is written. Knows no HTTP and no page.

A thread of its own reads the engine and keeps what was written, so that whoever shows the answer is never
stuck behind the next word: they look when they are told to, see the newest state, and may go away at any
moment. A slow reader holds nothing up and skips states instead of collecting them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from annotate.services import Services
from store.completions import save_completion
from store.errors import Busy
from store.records import Chunk, Completion, FinishReason, Message, Sampling, TokenLogprob

log = logging.getLogger(__name__)

STOPPED = "the answer was stopped before it was finished; try again shortly"
PLACE_S = 1.0
LOOK_S = 0.5  # a reader looks this often even when nothing changed, so that it notices that it is not wanted


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it grows, `text` being all of it so far; the last has `finish_reason` and `completion`.

    `version` is empty while nobody has begun, `place` the place in the queue while it waits (1 is next).
    A cancelled answer of which nothing was written has no `completion`: it was not kept.
    """

    text: str
    completion_id: str
    version: str
    finish_reason: FinishReason | None = None
    completion: Completion | None = None
    place: int | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """What is known of an answer before its first word."""

    completion_id: str
    person_id: str
    messages: tuple[Message, ...]
    sampling: Sampling
    conversation_id: str | None

    def finish(self, answer: Answer, last: Chunk | None) -> Completion:
        """The completion to keep. Without a last chunk the writing broke off; its tokens are not known."""
        return Completion(
            completion_id=self.completion_id,
            messages=self.messages,
            text=answer.text,
            version=answer.version,
            sampling=self.sampling,
            token_ids=last.token_ids if last else (),
            logprob_sum=last.logprob_sum if last else 0.0,
            finish_reason=(last.finish_reason if last else None) or "cancelled",
            num_prompt_tokens=last.num_prompt_tokens if last else 0,
            created_at=datetime.now(UTC),
            conversation_id=self.conversation_id,
            person_id=self.person_id,
            num_left_out=last.num_left_out if last else 0,
        )


class Writing:
    """Reads one request of the engine to its end, saves the completion, and frees the person's place."""

    def __init__(self, services: Services, draft: Draft, chunks: Iterator[Chunk]) -> None:
        self._services = services
        self._draft = draft
        self._chunks = chunks
        self._answer = Answer("", draft.completion_id, "")
        self._error: Exception | None = None
        self._is_unwanted = False
        self._told_place_at = float("-inf")
        self._tell: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"write-{draft.completion_id}", daemon=True)
        self._thread.start()

    @property
    def completion_id(self) -> str:
        """The id under which the answer will be kept."""
        return self._draft.completion_id

    def listen(self, tell: Callable[[], None] | None) -> None:
        """Call `tell` after every change, from the thread that writes; None stops that."""
        self._tell = tell

    def read(self) -> Answer:
        """The newest state; raises what ended the writing when it failed."""
        if self._error is not None:
            raise self._error
        return self._answer

    def close(self) -> None:
        """Nobody waits for it any more: stop the engine. Returns at once; what was written is still saved."""
        self._is_unwanted = True
        try:
            _close(self._chunks)
        except ValueError:  # a generator is not closed while its thread is in it; the thread does it then
            log.debug("answer %s is stopped at its next word", self.completion_id)

    def wait(self, timeout_s: float) -> bool:
        """Wait until all is saved and the place is free; False when that took longer."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        begun, last, error = time.monotonic(), None, None
        try:
            last = self._read_chunks()
        except Exception as problem:
            error = problem
        try:
            completion = self._keep(last)
        except Exception as problem:
            log.exception("answer %s could not be saved", self.completion_id)
            error, completion = problem, None
        finally:
            self._services.slots.free(self._draft.person_id, self.completion_id)
        if last is not None:
            self._services.patience.note_finished(time.monotonic() - begun)
        reason = last.finish_reason if last else "cancelled"
        self._error = error
        self._show(replace(self._answer, finish_reason=reason, completion=completion, place=None))

    def _read_chunks(self) -> Chunk | None:
        """Read to the last chunk; None when the engine stopped without one, because it was told to."""
        for chunk in self._chunks:
            if self._is_unwanted:
                _close(self._chunks)
            grown = replace(
                self._answer,
                text=self._answer.text + chunk.text,
                version=chunk.version,
                place=chunk.place,
                logprobs=(*self._answer.logprobs, *chunk.logprobs),
            )
            if chunk.finish_reason is not None:
                self._answer = grown  # not shown yet: it is finished once it is saved
                return chunk
            self._show(grown, is_urgent=self._has_news(grown))
        return None

    def _has_news(self, grown: Answer) -> bool:
        """Another place in a long queue is no reason to wake anybody more than once a second."""
        now = time.monotonic()
        if grown.place is not None and now - self._told_place_at < PLACE_S:
            return False
        self._told_place_at = now
        return True

    def _keep(self, last: Chunk | None) -> Completion | None:
        """Save what was written; a request that was broken off before its first word leaves nothing."""
        was_broken_off = last is None or last.finish_reason == "cancelled"
        if was_broken_off and not self._answer.text:
            return None
        return save_completion(self._services.store, self._draft.finish(self._answer, last))

    def _show(self, answer: Answer, is_urgent: bool = True) -> None:
        self._answer = answer
        tell = self._tell
        if tell is not None and is_urgent:
            tell()


def follow(writings: Sequence[Writing], look_s: float = LOOK_S) -> Generator[tuple[Answer, ...], None, None]:
    """The answers each time one has grown, and at least every `look_s` seconds, until all are finished.

    Ending it early in any way stops the engine. Raises what ended one of them, Busy when it was stopped by
    somebody else before its first word.
    """
    changed = threading.Event()
    try:
        for writing in writings:
            writing.listen(changed.set)
        while True:
            answers = tuple(writing.read() for writing in writings)
            yield answers
            if all(answer.finish_reason is not None for answer in answers):
                break
            changed.wait(look_s)
            changed.clear()
        if any(answer.completion is None for answer in answers):
            raise Busy(STOPPED)
    finally:
        for writing in writings:
            writing.listen(None)
            writing.close()


def _close(chunks: Iterator[Chunk]) -> None:
    close = getattr(chunks, "close", None)
    if close is not None:
        close()
