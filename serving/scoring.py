"""How likely a version finds an answer that is already written: one forward pass over padded rows, no cache.

The sum is the one that generation records: over every token of the answer, in nats, under the raw logits.
Knows no thread; the scheduler calls it between two steps, because a model must not be called twice at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import torch
from torch import Tensor


class Scoring:
    """One answer to be scored: what was asked, what was answered, and the sum of its log-probs to come."""

    def __init__(self, version: str, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> None:
        self.version = version
        self.prompt_ids = tuple(prompt_ids)
        self.answer_ids = tuple(answer_ids)
        self.logprob_sum: Future[float] = Future()

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


@torch.inference_mode()
def score_rows(model: Any, rows: Sequence[Scoring]) -> list[float]:
    """The sum of log-probs of each row's answer. Rows end at the same column, as they do when decoding."""
    width = max(row.num_tokens for row in rows)
    longest = max(len(row.answer_ids) for row in rows)
    padding = [width - row.num_tokens for row in rows]
    ids = torch.tensor(
        [[0] * pad + [*row.prompt_ids, *row.answer_ids] for pad, row in zip(padding, rows, strict=True)],
        device=model.device,
    )
    mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding], device=model.device)
    optional = {
        "position_ids": (mask.cumsum(-1) - 1).clamp_min(0),
        "logits_to_keep": longest + 1,  # the vocabulary is large, and what the prompt predicts is not asked
    }
    accepted = inspect.signature(model.forward).parameters
    known = {name: value for name, value in optional.items() if name in accepted}
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **known).logits
    return [sum_logprobs(row_logits, row.answer_ids) for row_logits, row in zip(logits, rows, strict=True)]


def sum_logprobs(logits: Tensor, answer_ids: Sequence[int]) -> float:
    """The log-prob of the last tokens of a row; `logits` ends with the column after the last of them."""
    predicting = logits[-len(answer_ids) - 1 : -1].float()  # (answer, vocabulary)
    wanted = torch.tensor(answer_ids, device=logits.device)[:, None]
    logprobs = predicting.gather(1, wanted)[:, 0] - predicting.logsumexp(-1)
    return float(logprobs.double().sum())
