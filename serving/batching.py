"""Rows that decode together: one padded cache, one forward pass, one token each. Knows no thread and no text.

All rows end at the same column, so their next tokens go into one column and what a row lacks lies to its
left, hidden by the mask. New rows are prefilled together and laid beside the running ones between two steps;
finished rows leave at once, and with them the padding that only they needed.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from serving.scoring import Scoring, score_rows
from store.errors import HeedError
from store.records import FinishReason, Sampling

ROOM = 64  # free columns after a rebuild: a rebuild copies the whole cache, so it should be rare


class Request:
    """One answer being written: what was asked, what has been drawn, and the queue its reader waits on.

    `updates` carries tuples of new token ids, and at the end None or the error that ended it.
    """

    def __init__(
        self, prompt_ids: Sequence[int], sampling: Sampling, max_tokens: int, background: bool = False
    ) -> None:
        self.prompt_ids = tuple(prompt_ids)
        self.sampling = sampling
        self.max_tokens = max_tokens
        self.background = background
        self.token_ids: list[int] = []
        self.logprob_sum = 0.0
        self.finish_reason: FinishReason | None = None
        self.is_cancelled = False
        self.error: HeedError | None = None
        self.updates: SimpleQueue[tuple[int, ...] | HeedError | None] = SimpleQueue()
        self._num_published = 0
        # One number a token from a generator of its own: the draw cannot depend on who else is in the batch.
        self._draws = random.Random(sampling.seed)

    @property
    def num_cached(self) -> int:
        """Columns of the cache this row fills: everything but the newest token."""
        return len(self.prompt_ids) + len(self.token_ids) - 1

    @property
    def has_finished(self) -> bool:
        return self.finish_reason is not None or self.error is not None

    @property
    def is_unheard(self) -> bool:
        """Nothing has been published yet, so the first token should not wait."""
        return self._num_published == 0

    def draw(self) -> float:
        return self._draws.random()

    def add(self, token_id: int, logprob: float, end_ids: frozenset[int]) -> None:
        self.token_ids.append(token_id)
        self.logprob_sum += logprob
        if token_id in end_ids:
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.max_tokens:
            self.finish_reason = "length"

    def publish(self) -> None:
        """Hand the reader what is new, and the end when it has come."""
        new = tuple(self.token_ids[self._num_published :])
        self._num_published += len(new)
        if new:
            self.updates.put(new)
        if self.has_finished:
            self.updates.put(self.error)


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """A cache layer with free columns at its end: a step writes one column and copies none."""

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        super().__init__()
        self._all_keys, self._all_values = keys, values  # (rows, heads, columns, head size)
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._show(length)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        start, end = self._length, self._length + key_states.shape[2]
        self._all_keys[:, :, start:end] = key_states
        self._all_values[:, :, start:end] = value_states
        self._show(end)
        return self.keys, self.values

    def _show(self, length: int) -> None:
        self._length = length
        self.keys, self.values = self._all_keys[:, :, :length], self._all_values[:, :, :length]


class Part(NamedTuple):
    """Some rows of a cache: the requests and the row each has there."""

    cache: DynamicCache
    requests: list[Request]
    rows: list[int]


class DecodeBatch:
    """The running rows of one version. Not thread-safe: one scheduler owns it."""

    def __init__(self, model: Any, end_ids: frozenset[int]) -> None:
        self.requests: list[Request] = []
        self._model = model
        self._end_ids = end_ids
        self._accepted = frozenset(inspect.signature(model.forward).parameters)
        self.clear()

    def clear(self) -> None:
        """Forget all rows, whatever state they are in."""
        self.requests, self._length = [], 0
        self._cache = DynamicCache()
        self._mask = torch.ones((0, 0), dtype=torch.long, device=self._model.device)

    @torch.inference_mode()
    def join(self, newcomers: list[Request]) -> None:
        """Prefill the newcomers together, draw their first tokens, and lay them beside the running rows."""
        width = max(len(request.prompt_ids) for request in newcomers)
        padding = [width - len(request.prompt_ids) for request in newcomers]
        ids = self._tensor([[0] * pad + [*r.prompt_ids] for pad, r in zip(padding, newcomers, strict=True)])
        mask = self._tensor([[0] * pad + [1] * (width - pad) for pad in padding])
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        cache = DynamicCache()
        logits = self._forward(ids, mask, positions, cache)
        self._draw(newcomers, logits)
        rows = [row for row, request in enumerate(newcomers) if not request.has_finished]
        fresh = Part(cache, [newcomers[row] for row in rows], rows)
        self._rebuild([Part(self._cache, self.requests, list(range(len(self.requests)))), fresh])

    @torch.inference_mode()
    def step(self) -> None:
        """One more token for every row; rows that finish leave the batch."""
        if self._length == self._mask.shape[1]:
            self._keep(list(range(len(self.requests))))
        ids = self._tensor([[request.token_ids[-1]] for request in self.requests])
        positions = self._tensor([[request.num_cached] for request in self.requests])
        self._length += 1
        logits = self._forward(ids, self._mask[:, : self._length], positions, self._cache)
        self._draw(self.requests, logits)
        self.drop_finished()

    @torch.inference_mode()
    def drop_finished(self) -> None:
        """Let finished and cancelled rows go."""
        rows = [row for row, request in enumerate(self.requests) if not request.has_finished]
        if len(rows) < len(self.requests):
            self._keep(rows)

    def score(self, rows: Sequence[Scoring]) -> list[float]:
        """The sums of log-probs of finished answers; what is running stays as it is."""
        return score_rows(self._model, rows)

    def _tensor(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, device=self._model.device)

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        optional = {"position_ids": positions, "logits_to_keep": 1}
        known = {name: value for name, value in optional.items() if name in self._accepted}
        logits: Tensor = self._model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **known
        ).logits
        return logits[:, -1].float()  # (rows, vocabulary)

    def _draw(self, requests: Sequence[Request], logits: Tensor) -> None:
        tokens = pick_tokens(logits, requests)
        logprobs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        # One transfer for both: float64 holds every token id exactly.
        drawn = torch.stack([tokens.double(), logprobs.double()], dim=1).tolist()
        for request, (token_id, logprob) in zip(requests, drawn, strict=True):
            request.add(int(token_id), logprob, self._end_ids)

    def _keep(self, rows: list[int]) -> None:
        self._rebuild([Part(self._cache, [self.requests[row] for row in rows], rows)])

    def _rebuild(self, parts: list[Part]) -> None:
        """Make a new cache out of rows of others, no wider than its longest row plus some room."""
        parts = [part for part in parts if part.rows]
        requests = [request for part in parts for request in part.requests]
        if not requests:
            self.clear()
            return
        length = max(request.num_cached for request in requests)
        rows = [part.rows for part in parts]
        cache = DynamicCache()
        cache.layers = [
            RoomyLayer(
                stack_rows([layer.keys for layer in same], rows, length),
                stack_rows([layer.values for layer in same], rows, length),
                length,
            )
            for same in zip(*(part.cache.layers for part in parts), strict=True)
        ]
        lengths = torch.tensor([[request.num_cached] for request in requests], device=self._model.device)
        columns = torch.arange(length + ROOM, device=self._model.device)
        self._mask = (columns >= length - lengths).long()  # (rows, columns)
        self.requests, self._cache, self._length = requests, cache, length


def stack_rows(caches: Sequence[Tensor], rows: Sequence[list[int]], length: int) -> Tensor:
    """The chosen rows of several caches in one, right-aligned at column `length`, with free room after it."""
    _, heads, _, size = caches[0].shape
    stacked = caches[0].new_zeros((sum(map(len, rows)), heads, length + ROOM, size))
    start = 0
    for cached, chosen in zip(caches, rows, strict=True):
        kept = cached[chosen, :, -length:]
        stacked[start : start + len(chosen), :, length - kept.shape[2] : length] = kept
        start += len(chosen)
    return stacked


def pick_tokens(logits: Tensor, requests: Sequence[Request]) -> Tensor:
    """One token a row: the likeliest at temperature 0, else the inverse CDF at the row's own draw."""
    likeliest = logits.argmax(-1)
    wanted = [request.sampling for request in requests]
    if all(sampling.temperature == 0 for sampling in wanted):
        return likeliest
    temperatures = logits.new_tensor([[sampling.temperature or 1.0] for sampling in wanted])
    probabilities = (logits / temperatures).softmax(-1)
    if any(sampling.top_p < 1 for sampling in wanted):
        top_p = logits.new_tensor([[sampling.top_p] for sampling in wanted])
        probabilities = keep_nucleus(probabilities, top_p)
    # float64: over 100,000 tokens the rounding of a float32 sum is larger than many of its terms.
    cumulative = probabilities.double().cumsum(-1)
    points = cumulative.new_tensor([[r.draw() if r.sampling.temperature else 0.0] for r in requests])
    drawn = torch.searchsorted(cumulative, points * cumulative[:, -1:], right=True)[:, 0]
    drawn = drawn.clamp_max(logits.shape[1] - 1)
    is_greedy = torch.tensor([sampling.temperature == 0 for sampling in wanted], device=logits.device)
    return torch.where(is_greedy, likeliest, drawn)


def keep_nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Zero all but the smallest set of tokens that holds `top_p` of a row. Vocabulary order stays, so that
    two nearly equal tokens trading ranks cannot change a draw."""
    ranked, order = probabilities.sort(-1, descending=True)
    is_outside = (ranked.cumsum(-1) - ranked >= top_p) & (top_p < 1)
    return probabilities.masked_fill(is_outside.scatter(-1, order, is_outside), 0.0)
