"""Losses of single ratings as pure functions, in the words of their papers. Knows no model and no trainer.

Training itself uses the library's; these say what its first loss must be, and the tests hold it to them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainer.settings import TrainerSettings


@dataclass(frozen=True, slots=True)
class RatingLogps:
    """Log-probs of a batch of rated answers, in nats, summed over tokens: (batch,) each.

    `kl` and `ref_kl` are of each prompt with another prompt's answer; a loss without a KL term ignores them.
    """

    policy: torch.Tensor
    reference: torch.Tensor
    kl: torch.Tensor
    ref_kl: torch.Tensor


def rating_losses(logps: RatingLogps, desirable: torch.Tensor, settings: TrainerSettings) -> torch.Tensor:
    """Each rating's loss, (batch,), under `settings.rating_loss`, before class and row weights."""
    loss = {"kto": kto, "apo_zero_unpaired": apo_zero_unpaired}[settings.rating_loss]
    return loss(logps, desirable, settings.beta)


def kto(logps: RatingLogps, desirable: torch.Tensor, beta: float) -> torch.Tensor:
    """KTO (arXiv 2402.01306, eq. 7 and 8): 1 - sigmoid(beta (r - z)) for a desirable answer, 1 - sigmoid(beta
    (z - r)) for an undesirable one; r = log pi/ref, z = max(0, mean over the batch of the mismatched log
    pi/ref), without gradient."""
    baseline = (logps.kl - logps.ref_kl).mean().clamp(min=0).detach()
    gains = logps.policy - logps.reference - baseline
    return 1 - (beta * torch.where(desirable, gains, -gains)).sigmoid()


def apo_zero_unpaired(logps: RatingLogps, desirable: torch.Tensor, beta: float) -> torch.Tensor:
    """APO-zero (arXiv 2408.06266, eq. 7) with its two terms on answers of their own: 1 - sigmoid(beta r) for
    a desirable answer, sigmoid(beta r) for an undesirable one. No KL term, so rows need no neighbours."""
    gains = logps.policy - logps.reference
    return 1 - (beta * torch.where(desirable, gains, -gains)).sigmoid()
