"""From logits to tokens: one draw a row, each from its own generator; the likeliest tokens for who asks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from serving.request import Request, Top


def pick_tokens(logits: Tensor, requests: Sequence[Request]) -> Tensor:
    """One token a row: the likeliest at temperature 0, else the inverse CDF at the row's own draw."""
    likeliest_ids = logits.argmax(-1)
    wanted = [request.sampling for request in requests]
    if all(sampling.temperature == 0 for sampling in wanted):
        return likeliest_ids
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
    return torch.where(is_greedy, likeliest_ids, drawn)


def keep_nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Zero all but the smallest set of tokens that holds `top_p` of a row. Vocabulary order stays, so that
    two nearly equal tokens trading ranks cannot change a draw."""
    ranked, order = probabilities.sort(-1, descending=True)
    is_outside = (ranked.cumsum(-1) - ranked >= top_p) & (top_p < 1)
    return probabilities.masked_fill(is_outside.scatter(-1, order, is_outside), 0.0)


def likeliest(logits: Tensor, normalizers: Tensor, requests: Sequence[Request]) -> list[Top]:
    """For each row as many of the likeliest tokens as its request asked for, with their log-probs."""
    most = max((request.top_logprobs or 0 for request in requests), default=0)
    if not most:
        return [()] * len(requests)
    values, ids = logits.topk(min(most, logits.shape[1]), dim=-1)
    ranked = zip(ids.tolist(), (values - normalizers[:, None]).tolist(), strict=True)
    return [
        tuple(zip(row_ids[:wanted], row_logprobs[:wanted], strict=True))
        for (row_ids, row_logprobs), wanted in zip(
            ranked, (request.top_logprobs or 0 for request in requests), strict=True
        )
    ]
