"""Preference losses of pairs as pure functions, in the words of their papers. Knows no model and no trainer.

Each paper's loss is written for labels that are right. `pair_losses` is the one place that says what a doubt
about a label (its `flip`) does to it. A pair's `weight` multiplies its loss, outside, in the mean over pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812

from trainer.settings import TrainerSettings


@dataclass(frozen=True, slots=True)
class PairLogps:
    """Log-probs of a batch of pairs in nats, summed over each answer's tokens, and how many tokens those are.

    All are (batch,). A loss without a reference never looks at the reference's two.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    ref_chosen: torch.Tensor
    ref_rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor

    def swapped(self) -> PairLogps:
        """The pairs as they are if every label is wrong: chosen and rejected trade places."""
        return PairLogps(
            chosen=self.rejected,
            rejected=self.chosen,
            ref_chosen=self.ref_rejected,
            ref_rejected=self.ref_chosen,
            chosen_tokens=self.rejected_tokens,
            rejected_tokens=self.chosen_tokens,
        )

    @property
    def chosen_logratios(self) -> torch.Tensor:
        """log pi(y_w | x) / pi_ref(y_w | x): (batch,)."""
        return self.chosen - self.ref_chosen

    @property
    def rejected_logratios(self) -> torch.Tensor:
        """log pi(y_l | x) / pi_ref(y_l | x): (batch,)."""
        return self.rejected - self.ref_rejected

    @property
    def logratio_gap(self) -> torch.Tensor:
        """How much more the chosen answer gained over the reference than the rejected one: (batch,)."""
        return self.chosen_logratios - self.rejected_logratios

    @property
    def mean_logratio_gap(self) -> torch.Tensor:
        """The same with each log-ratio divided by its answer's length: nats a token, (batch,)."""
        return self.chosen_logratios / self.chosen_tokens - self.rejected_logratios / self.rejected_tokens


SUREST = 1e-6  # nats a token under which orpo takes an answer for no surer: odds of a million to one
PaperLoss = Callable[[PairLogps], torch.Tensor]


def pair_losses(
    pairs: PairLogps, flip: torch.Tensor, weight: torch.Tensor, settings: TrainerSettings
) -> torch.Tensor:
    """Each pair's loss, (batch,), under `settings.loss`; the objective is the mean of weight times loss.

    `flip` is the probability that a pair's label is wrong. `sigmoid` takes every label at its word, `robust`
    removes the bias that flips bring, `exo` aims at the doubtful distribution itself, `aot` doubts quantile
    by quantile; every other loss f becomes its expectation, (1 - flip) f(pair) + flip f(pair swapped).
    """
    beta = settings.beta
    if settings.loss == "sigmoid":
        return dpo(pairs, beta)
    if settings.loss == "robust":
        return remove_bias(partial(dpo, beta=beta), pairs, flip)
    if settings.loss == "exo":
        return exo(pairs, flip, beta)
    if settings.loss == "aot":
        return aot(pairs, flip, weight, beta)
    papers: dict[str, PaperLoss] = {
        "cdpo": partial(dpo, beta=beta),
        "ipo": partial(ipo, tau=beta),
        "hinge": partial(hinge, beta=beta),
        "apo_zero": partial(apo_zero, beta=beta),
        "apo_down": partial(apo_down, beta=beta),
        "sigmoid_norm": partial(sigmoid_norm, beta=beta),
        "simpo": partial(simpo, beta=beta, gamma=settings.simpo_gamma),
        "orpo": partial(odds_ratio, weight=settings.orpo_weight),
    }
    return expect_flips(papers[settings.loss], pairs, flip)


def expect_flips(loss: PaperLoss, pairs: PairLogps, flip: torch.Tensor) -> torch.Tensor:
    """The loss to be expected when a label is wrong with probability `flip`: (1 - eps) f(w, l) + eps f(l, w).

    For the sigmoid loss this is conservative DPO (Mitchell, "A note on DPO with noisy preferences", 2023).
    """
    return (1 - flip) * loss(pairs) + flip * loss(pairs.swapped())


def remove_bias(loss: PaperLoss, pairs: PairLogps, flip: torch.Tensor) -> torch.Tensor:
    """Robust DPO (arXiv 2403.00409, section 3.1): [(1 - eps) f(w, l) - eps f(l, w)] / (1 - 2 eps).

    Its mean over labels flipped with probability eps is the loss on clean labels. It has no lower bound for
    eps above 0, and eps 0.5 divides by zero.
    """
    return ((1 - flip) * loss(pairs) - flip * loss(pairs.swapped())) / (1 - 2 * flip)


def cdpo_losses(margins: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """Conservative DPO: a share `flip` of the labels is taken for flipped. `margins` are beta times the
    difference of log-ratios; at flip 0 it is the sigmoid loss, above 0 its optimum is finite: margin = log((1
    - flip) / flip)."""
    return -(1 - flip) * F.logsigmoid(margins) - flip * F.logsigmoid(-margins)  # (batch,)


def dpo(pairs: PairLogps, beta: float) -> torch.Tensor:
    """DPO (arXiv 2305.18290, eq. 7): -log sigmoid(beta (log pi/ref of chosen - log pi/ref of rejected))."""
    return -F.logsigmoid(beta * pairs.logratio_gap)


def ipo(pairs: PairLogps, tau: float) -> torch.Tensor:
    """IPO (arXiv 2310.12036, eq. 17): (h - 1 / (2 tau))^2, h the gap of the log-ratios.

    Log-ratios are means over tokens, as its authors told the library they meant; then tau suits all lengths.
    """
    return (pairs.mean_logratio_gap - 1 / (2 * tau)) ** 2


def hinge(pairs: PairLogps, beta: float) -> torch.Tensor:
    """The hinge of SLiC (arXiv 2305.10425) on DPO's margin, as RSO has it (arXiv 2309.06657):
    max(0, 1 - beta gap)."""
    return torch.relu(1 - beta * pairs.logratio_gap)


def exo(pairs: PairLogps, flip: torch.Tensor, beta: float) -> torch.Tensor:
    """EXO for pairs (arXiv 2402.00856, eq. 16): KL(q || p), q = (sigmoid(m), sigmoid(-m)) with m = beta gap
    and p = (1 - eps, eps), whose eps is the label's doubt. eps 0 would be infinite."""
    margins = beta * pairs.logratio_gap
    won = margins.sigmoid() * (F.logsigmoid(margins) - torch.log1p(-flip))
    lost = (-margins).sigmoid() * (F.logsigmoid(-margins) - flip.log())
    return won + lost


def apo_zero(pairs: PairLogps, beta: float) -> torch.Tensor:
    """APO-zero (arXiv 2408.06266, eq. 7), plus 1 so that it is at least 0: chosen answers up, rejected down.

    1 - sigmoid(beta log pi/ref of chosen) + sigmoid(beta log pi/ref of rejected).
    """
    return 1 - (beta * pairs.chosen_logratios).sigmoid() + (beta * pairs.rejected_logratios).sigmoid()


def apo_down(pairs: PairLogps, beta: float) -> torch.Tensor:
    """APO-down (arXiv 2408.06266, eq. 8), plus 1: both answers down, the rejected one further.

    sigmoid(beta log pi/ref of chosen) + 1 - sigmoid(beta gap). For answers worse than the policy's own.
    """
    return (beta * pairs.chosen_logratios).sigmoid() + 1 - (beta * pairs.logratio_gap).sigmoid()


def sigmoid_norm(pairs: PairLogps, beta: float) -> torch.Tensor:
    """DPO with each log-ratio divided by its answer's length (a baseline of arXiv 2405.14734):
    -log sigmoid(beta (mean log pi/ref of chosen - mean log pi/ref of rejected))."""
    return -F.logsigmoid(beta * pairs.mean_logratio_gap)


def simpo(pairs: PairLogps, beta: float, gamma: float) -> torch.Tensor:
    """SimPO (arXiv 2405.14734, eq. 6), no reference: -log sigmoid(beta (mean log pi of chosen - mean log pi
    of rejected) - gamma)."""
    gap = pairs.chosen / pairs.chosen_tokens - pairs.rejected / pairs.rejected_tokens
    return -F.logsigmoid(beta * gap - gamma)


def odds_ratio(pairs: PairLogps, weight: float) -> torch.Tensor:
    """ORPO's second term (arXiv 2403.07691, eq. 6 and 7), no reference: -lambda log sigmoid(log odds of
    chosen - log odds of rejected), odds = P / (1 - P), P the geometric mean of the tokens' probabilities.

    Its first term is the likelihood term that `sft_weight` brings to every loss; 1.0 is the paper's.
    """
    log_odds = _log_odds(pairs.chosen / pairs.chosen_tokens) - _log_odds(
        pairs.rejected / pairs.rejected_tokens
    )
    return -weight * F.logsigmoid(log_odds)


def _log_odds(mean_logps: torch.Tensor) -> torch.Tensor:
    # Two answers the policy is sure of have infinite odds each, whose difference is not a number.
    mean_logps = mean_logps.clamp(max=-SUREST)
    return mean_logps - torch.log(-torch.expm1(mean_logps))


def aot(pairs: PairLogps, flip: torch.Tensor, weight: torch.Tensor, beta: float) -> torch.Tensor:
    """AOT (arXiv 2406.05882, section 3): DPO's loss between equal quantiles of two distributions over the
    batch, the policy's log pi(y_w) / pi(y_l) and the reference's, instead of between the two of one pair.

    Weights are the pairs' masses in both distributions, so a pair of weight 2 counts as two of them. What is
    returned for a pair is the mean over its policy's quantiles, with the pair's own flip.
    """
    policy, reference = pairs.chosen - pairs.rejected, pairs.ref_chosen - pairs.ref_rejected
    here, there, mass = couple_quantiles(policy.detach(), reference, weight)
    losses = cdpo_losses(beta * (policy[here] - reference[there]), flip[here])
    sums = torch.zeros_like(policy).index_add(0, here, losses * mass)
    return torch.where(weight > 0, sums / weight.clamp(min=1e-12), 0.0)


def couple_quantiles(
    one: torch.Tensor, other: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The optimal transport between two distributions on a line, each of points with these weights.

    Pieces of mass as (index in `one`, index in `other`, mass); with equal weights, sorted beside sorted.
    """
    orders = one.argsort(), other.argsort()
    ends = [weight[order].double().cumsum(0) for order in orders]
    edges = torch.cat(ends).sort().values
    mass = edges.diff(prepend=edges.new_zeros(1))
    middles = edges - mass / 2
    last = len(weight) - 1
    here, there = (
        order[torch.searchsorted(end, middles).clamp(max=last)]
        for order, end in zip(orders, ends, strict=True)
    )
    return here, there, mass.to(weight.dtype)


def wpo_weights(chosen_alignment: torch.Tensor, rejected_alignment: torch.Tensor) -> torch.Tensor:
    """WPO (arXiv 2406.11827, eq. 2): how much the policy itself would say both answers, without gradient.

    An answer's alignment is the mean over its tokens of log pi(y_t) - log sum_v pi(v)^2, so that a token
    drawn from the policy counts about 1 on average. (batch,), not normalised.
    """
    return (chosen_alignment + rejected_alignment).exp().detach()


def implicit_rewards(pairs: PairLogps, settings: TrainerSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """What the loss takes for the rewards of chosen and of rejected answers, for the log: (batch,) each.

    beta log pi/ref; without a reference the mean log-prob times SimPO's beta or ORPO's weight.
    """
    if settings.loss in ("simpo", "orpo"):
        scale = settings.beta if settings.loss == "simpo" else settings.orpo_weight
        return scale * pairs.chosen / pairs.chosen_tokens, scale * pairs.rejected / pairs.rejected_tokens
    return settings.beta * pairs.chosen_logratios, settings.beta * pairs.rejected_logratios
