"""Scores answer tokens only: the language-model head sees the hidden states that predict one, and no others.

The library's fused head projects every position on a machine without Triton, and once more in the backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(slots=True)
class AnswerScores:
    """What the head says of each answer token, (batch, seq - 1) and 0 elsewhere; names as the library's."""

    log_probs: Any
    entropy: Any
    mean_logits: Any
    is_top1: Any
    log_sum_sq_probs: Any  # None unless it was asked for


def score_answers(
    model: Any, head: torch.nn.Module, inputs: dict[str, Any], labels: torch.Tensor, squares: bool = False
) -> AnswerScores:
    """Run `model`, whose head is `head`, and score the tokens that `labels` (batch, seq) names; -100 names
    none. `squares` asks for log sum p^2 as well."""
    targets = labels[:, 1:]
    is_answer = targets != -100
    with _only(head, is_answer):
        logits = model(**inputs, use_cache=False).logits  # (answer tokens, vocabulary)
    scores: list[Any] = _Scores.apply(logits, targets[is_answer], squares)  # type: ignore[no-untyped-call]
    return AnswerScores(*(None if score is None else _spread(score, is_answer) for score in scores))


def _spread(score: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return score.new_zeros(positions.shape).masked_scatter(positions, score)


@contextmanager
def _only(head: torch.nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """Before the head rather than around the model: scaling and capping of logits stay the model's own."""
    hook = head.register_forward_pre_hook(lambda _, arguments: (arguments[0][:, :-1][positions],))
    try:
        yield
    finally:
        hook.remove()


class _Scores(torch.autograd.Function):
    """Log-probs with the library's statistics from one exponential, which the backward uses again."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor, squares: bool) -> Any:
        ctx.dtype = logits.dtype
        logits = logits.float()
        highest, at = logits.max(-1)
        probs = (logits - highest[:, None]).exp_()
        total = probs.sum(-1)
        log_total = highest + total.log()
        probs /= total[:, None]
        log_probs = logits.gather(1, targets[:, None])[:, 0] - log_total
        entropy = log_total - torch.linalg.vecdot(probs, logits)
        log_squares = torch.linalg.vecdot(probs, probs).log() if squares else None
        others = (entropy, logits.mean(-1), at == targets, log_squares)
        ctx.mark_non_differentiable(*(score for score in others if score is not None))
        ctx.save_for_backward(probs, targets)
        return log_probs, *others

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> Any:
        """d log p_target / d logits = 1[target] - p."""
        probs, targets = ctx.saved_tensors
        grad_logits = probs * -grad[:, None]
        grad_logits[torch.arange(len(targets)), targets] += grad
        return grad_logits.to(ctx.dtype), None, None
