"""One answer being written: what was asked, what has been drawn so far, and the queue its reader waits on."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from queue import SimpleQueue

from store.errors import HeedError
from store.records import FinishReason, Sampling

Top = tuple[tuple[int, float], ...]  # (token id, log-prob), the likeliest first


class Request:
    """Filled by the scheduler's thread, read by one other.

    `updates` carries tuples of new token ids, and at the end None or the error that ended it. `logprobs` and
    `tops` have one entry a token and only ever grow.
    """

    def __init__(
        self,
        version: str,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        max_tokens: int,
        background: bool = False,
        top_logprobs: int | None = None,
    ) -> None:
        self.version = version
        self.prompt_ids = tuple(prompt_ids)
        self.sampling = sampling
        self.max_tokens = max_tokens
        self.background = background
        self.top_logprobs = top_logprobs
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.tops: list[Top] = []
        self.finish_reason: FinishReason | None = None
        self.is_cancelled = False
        self.ends_as: FinishReason = "cancelled"  # what it is when it is cancelled; "stop" after a stop text
        self.error: HeedError | None = None
        self.updates: SimpleQueue[tuple[int, ...] | HeedError | None] = SimpleQueue()
        self.submitted_at = time.monotonic()
        self.num_passed = 0  # later ones that were served first
        self._num_published = self._num_counted = 0
        # One number a token from a generator of its own: the draw cannot depend on who else is in the batch.
        self._draws = random.Random(sampling.seed)

    @property
    def context_ids(self) -> tuple[int, ...]:
        """What the model must read before the next token: after parking, the answer so far too."""
        return (*self.prompt_ids, *self.token_ids)

    @property
    def num_cached(self) -> int:
        """Columns of the cache this row fills: everything but the newest token."""
        return len(self.prompt_ids) + len(self.token_ids) - 1

    @property
    def most_columns(self) -> int:
        """Columns it will fill at most."""
        return len(self.prompt_ids) + self.max_tokens

    @property
    def has_finished(self) -> bool:
        return self.finish_reason is not None or self.error is not None

    @property
    def is_unheard(self) -> bool:
        """Nothing has been published yet, so the first token should not wait."""
        return self._num_published == 0

    def draw(self) -> float:
        """The next number of this request's own generator, 0 to 1."""
        return self._draws.random()

    def add(self, token_id: int, logprob: float, end_ids: frozenset[int], top: Top = ()) -> None:
        """One more token; the last one when it ends the answer or fills it."""
        self.logprobs.append(logprob)
        self.tops.append(top)
        self.token_ids.append(token_id)
        if token_id in end_ids:
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.max_tokens:
            self.finish_reason = "length"

    def count_new(self) -> int:
        """Tokens since this was last asked, for the figures."""
        new, self._num_counted = len(self.token_ids) - self._num_counted, len(self.token_ids)
        return new

    def publish(self) -> None:
        """Hand the reader what is new, and the end when it has come."""
        new = tuple(self.token_ids[self._num_published :])
        self._num_published += len(new)
        if new:
            self.updates.put(new)
        if self.has_finished:
            self.updates.put(self.error)
