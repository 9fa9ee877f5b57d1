"""Rows that decode together: one padded cache, one forward pass, one token each. Knows no thread and no text.

All rows end at the same column, so their next tokens go into one column and what a row lacks lies to its
left, hidden by the mask. New prompts are read beside the running rows, a long one piece by piece, and laid
among them once they are read; finished rows leave at once, and with them the padding that only they needed.
Rows of one version lie together (see lora.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from serving.lora import LoraBank
from serving.request import Request
from serving.sampling import likeliest, pick_tokens
from serving.scoring import Scoring, score_rows

ROOM = 64  # free columns after a rebuild: a rebuild copies the whole cache, so it should be rare


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """A cache layer with free columns at its end: a step writes one column and copies none."""

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        super().__init__()
        self._all_keys, self._all_values = keys, values  # (rows, heads, columns, head size)
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._show(length)

    @property
    def num_bytes(self) -> int:
        return self._all_keys.nbytes + self._all_values.nbytes

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


class Prefill:
    """Prompts being read together, left-padded to the same width, some columns at a time."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self.requests = sorted(requests, key=lambda request: request.version)
        contexts = [request.context_ids for request in self.requests]
        self.width = max(map(len, contexts))
        self.done = 0
        self.cache = DynamicCache()
        padding = [self.width - len(ids) for ids in contexts]
        self.ids = [[0] * pad + [*ids] for pad, ids in zip(padding, contexts, strict=True)]
        self.mask = [[0] * pad + [1] * (self.width - pad) for pad in padding]

    @property
    def columns_left(self) -> int:
        return self.width - self.done


class Part(NamedTuple):
    """Some rows of a cache: the requests and the row each has there."""

    cache: DynamicCache
    requests: list[Request]
    rows: list[int]


class DecodeBatch:
    """The running rows of all versions. Not thread-safe: one scheduler owns it.

    `chunk_tokens` is how much prompt may hold up the running rows in one turn.
    """

    def __init__(self, model: Any, bank: LoraBank, end_ids: frozenset[int], chunk_tokens: int) -> None:
        self.requests: list[Request] = []
        self._prefills: list[Prefill] = []
        self._reads_oldest = True
        self._model = model
        self._bank = bank
        self._end_ids = end_ids
        self._chunk_tokens = chunk_tokens
        self._accepted = frozenset(inspect.signature(model.forward).parameters)
        self.clear()

    @property
    def reading(self) -> list[Request]:
        """Requests whose prompts are being read."""
        return [request for prefill in self._prefills for request in prefill.requests]

    @property
    def cache_tokens(self) -> int:
        """Columns of cache held, padding and free room included."""
        return self._mask.numel() + sum(prefill.done * len(prefill.requests) for prefill in self._prefills)

    @property
    def cache_bytes(self) -> int:
        """Memory of the running rows' cache."""
        return sum(layer.num_bytes for layer in self._cache.layers)

    def clear(self) -> None:
        """Forget all rows, whatever state they are in."""
        self.requests, self._prefills, self._length = [], [], 0
        self._cache = DynamicCache()
        self._mask = torch.ones((0, 0), dtype=torch.long, device=self._model.device)

    def admit(self, newcomers: Sequence[Request]) -> None:
        """Begin to read these prompts: those that fit into one turn's share together, longer ones alone."""
        together: list[Request] = []
        for request in sorted(newcomers, key=lambda request: len(request.context_ids)):
            if len(request.context_ids) * (len(together) + 1) <= self._chunk_tokens:
                together.append(request)
            elif together:
                self._prefills.append(Prefill(together))
                together = [request]
            else:
                self._prefills.append(Prefill([request]))
        if together:
            self._prefills.append(Prefill(together))

    @torch.inference_mode()
    def step(self) -> None:
        """Read a piece of what waits to be read, then one more token for every row; finished rows leave."""
        if self._prefills:
            self._reads_oldest = not self._reads_oldest
            # A short question must not wait until a long document has been read, nor the document for ever.
            shortest = min(self._prefills, key=lambda prefill: prefill.columns_left)
            self._read(self._prefills[0] if self._reads_oldest else shortest)
        if self.requests:
            self._decode()

    @torch.inference_mode()
    def drop_finished(self) -> None:
        """Let finished and cancelled rows go."""
        for prefill in self._prefills[:]:
            if all(request.has_finished for request in prefill.requests):
                self._prefills.remove(prefill)
        rows = [row for row, request in enumerate(self.requests) if not request.has_finished]
        if len(rows) < len(self.requests):
            self._keep(rows)

    @torch.inference_mode()
    def park(self, parked: Sequence[Request]) -> None:
        """Let rows go that will be admitted again later; their cache is given up and read anew then."""
        rows = [row for row, request in enumerate(self.requests) if request not in parked]
        self._keep(rows)

    def score(self, rows: Sequence[Scoring]) -> list[float]:
        """The sums of log-probs of finished answers of one version; what is running stays as it is."""
        self._bank.route([row.version for row in rows])
        return score_rows(self._model, rows)

    def _read(self, prefill: Prefill) -> None:
        """The next columns of some prompts; once all are read, draw, and the rows join the running ones."""
        start = prefill.done
        stop = min(prefill.width, start + max(1, self._chunk_tokens // len(prefill.requests)))
        mask = self._tensor([row[:stop] for row in prefill.mask])
        positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, start:]
        ids = self._tensor([row[start:stop] for row in prefill.ids])
        logits = self._forward(prefill.requests, ids, mask, positions, prefill.cache)
        prefill.done = stop
        if prefill.columns_left:
            return
        self._prefills.remove(prefill)
        self._draw(prefill.requests, logits)
        rows = [row for row, request in enumerate(prefill.requests) if not request.has_finished]
        fresh = Part(prefill.cache, [prefill.requests[row] for row in rows], rows)
        self._rebuild([Part(self._cache, self.requests, list(range(len(self.requests)))), fresh])

    def _decode(self) -> None:
        if self._length == self._mask.shape[1]:
            self._keep(list(range(len(self.requests))))
        ids = self._tensor([[request.token_ids[-1]] for request in self.requests])
        positions = self._tensor([[request.num_cached] for request in self.requests])
        self._length += 1
        logits = self._forward(self.requests, ids, self._mask[:, : self._length], positions, self._cache)
        self._draw(self.requests, logits)
        self.drop_finished()

    def _tensor(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, device=self._model.device)

    def _forward(
        self, requests: Sequence[Request], ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache
    ) -> Tensor:
        self._bank.route([request.version for request in requests])
        optional = {"position_ids": positions, "logits_to_keep": 1}
        known = {name: value for name, value in optional.items() if name in self._accepted}
        logits: Tensor = self._model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **known
        ).logits
        return logits[:, -1].float()  # (rows, vocabulary)

    def _draw(self, requests: Sequence[Request], logits: Tensor) -> None:
        tokens = pick_tokens(logits, requests)
        normalizers = logits.logsumexp(-1)
        logprobs = logits.gather(1, tokens[:, None])[:, 0] - normalizers
        # One transfer for both: float64 holds every token id exactly.
        drawn = torch.stack([tokens.double(), logprobs.double()], dim=1).tolist()
        tops = likeliest(logits, normalizers, requests)
        for request, (token_id, logprob), top in zip(requests, drawn, tops, strict=True):
            if not request.has_finished:  # cancelled while its prompt was read
                request.add(int(token_id), logprob, self._end_ids, top)

    def _keep(self, rows: list[int]) -> None:
        self._rebuild([Part(self._cache, [self.requests[row] for row in rows], rows)])

    def _rebuild(self, parts: list[Part]) -> None:
        """Make a new cache out of rows of others, no wider than its longest row plus some room."""
        parts = [part for part in parts if part.rows]
        if not parts:
            self.requests, self._length = [], 0
            self._cache, self._mask = DynamicCache(), self._mask[:0, :0]
            return
        unsorted = [request for part in parts for request in part.requests]
        order = sorted(range(len(unsorted)), key=lambda number: unsorted[number].version)
        requests = [unsorted[number] for number in order]
        length = max(request.num_cached for request in requests)
        rows = [part.rows for part in parts]
        cache = DynamicCache()
        cache.layers = [
            RoomyLayer(
                stack_rows([layer.keys for layer in same], rows, order, length),
                stack_rows([layer.values for layer in same], rows, order, length),
                length,
            )
            for same in zip(*(part.cache.layers for part in parts), strict=True)
        ]
        lengths = torch.tensor([[request.num_cached] for request in requests], device=self._model.device)
        columns = torch.arange(length + ROOM, device=self._model.device)
        self._mask = (columns >= length - lengths).long()  # (rows, columns)
        self.requests, self._cache, self._length = requests, cache, length


def stack_rows(
    caches: Sequence[Tensor], rows: Sequence[list[int]], order: Sequence[int], length: int
) -> Tensor:
    """The chosen rows of several caches in one, in `order`, right-aligned at column `length`, with room."""
    _, heads, _, size = caches[0].shape
    stacked = caches[0].new_zeros((len(order), heads, length + ROOM, size))
    places = sorted(range(len(order)), key=order.__getitem__)  # where each chosen row goes
    start = 0
    for cached, chosen in zip(caches, rows, strict=True):
        kept = cached[chosen, :, -length:]
        stacked[places[start : start + len(chosen)], :, length - kept.shape[2] : length] = kept
        start += len(chosen)
    return stacked
