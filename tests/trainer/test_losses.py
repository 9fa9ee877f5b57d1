"""Each loss against its formula written out a second way, in plain floats and by the numbers of one pair."""

from __future__ import annotations

from dataclasses import fields, replace
from math import exp, expm1, log
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.losses import (
    PairLogps,
    aot,
    couple_quantiles,
    dpo,
    expect_flips,
    implicit_rewards,
    odds_ratio,
    pair_losses,
    remove_bias,
    wpo_weights,
)
from trainer.rating_losses import RatingLogps, apo_zero_unpaired, kto
from trainer.settings import REFERENCE_FREE, LossName, TrainerSettings

LOSSES = LossName.__args__
BETA = 0.5
TOLD = TrainerSettings(beta=BETA, simpo_gamma=0.7, orpo_weight=0.3)


def told(loss):
    return replace(TOLD, loss=loss)


def batch(*rows):
    """Rows of chosen, rejected, their two under the reference, and their two lengths."""
    columns = torch.tensor(rows, dtype=torch.float64).T
    return PairLogps(**{field.name: column for field, column in zip(fields(PairLogps), columns, strict=True)})


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


# Chosen gained 2 nats over 4 tokens and the rejected answer lost 1 over 5; in the second both lost.
PAIRS = batch((-6.0, -9.0, -8.0, -8.0, 4, 5), (-7.0, -12.0, -5.0, -4.0, 2, 8), (-3.0, -2.5, -4.5, -1.0, 3, 1))
FLIPS = column(0.1, 0.25, 0.4)
ONES = column(1.0, 1.0, 1.0)


def sigmoid(x):
    return 1 / (1 + exp(-x))


def odds(mean_logp):
    return exp(mean_logp) / -expm1(mean_logp)


class Row(NamedTuple):
    """One pair as floats: chosen, rejected, both under the reference, both lengths."""

    c: float
    r: float
    rc: float
    rr: float
    n: float
    m: float


def gap(p):
    return (p.c - p.rc) - (p.r - p.rr)


# The papers' losses of one pair.
PAPERS = {
    "cdpo": lambda p: log(1 + exp(-BETA * gap(p))),
    "ipo": lambda p: ((p.c - p.rc) / p.n - (p.r - p.rr) / p.m - 1 / (2 * BETA)) ** 2,
    "hinge": lambda p: max(0.0, 1 - BETA * gap(p)),
    "apo_zero": lambda p: 1 - sigmoid(BETA * (p.c - p.rc)) + sigmoid(BETA * (p.r - p.rr)),
    "apo_down": lambda p: sigmoid(BETA * (p.c - p.rc)) + sigmoid(-BETA * gap(p)),
    "sigmoid_norm": lambda p: -log(sigmoid(BETA * ((p.c - p.rc) / p.n - (p.r - p.rr) / p.m))),
    "simpo": lambda p: -log(sigmoid(BETA * p.c / p.n - BETA * p.r / p.m - 0.7)),
    "orpo": lambda p: 0.3 * log(1 + odds(p.r / p.m) / odds(p.c / p.n)),
}
PAPERS["sigmoid"] = PAPERS["robust"] = PAPERS["cdpo"]


def exo_by_hand(p, eps):
    won = sigmoid(BETA * gap(p))
    return won * log(won / (1 - eps)) + (1 - won) * log((1 - won) / eps)


def doubt_by_hand(loss, p, eps):
    right, wrong = PAPERS[loss](p), PAPERS[loss](Row(p.r, p.c, p.rr, p.rc, p.m, p.n))
    if loss == "sigmoid":
        return right
    if loss == "robust":
        return ((1 - eps) * right - eps * wrong) / (1 - 2 * eps)
    return (1 - eps) * right + eps * wrong


def rows_of(pairs):
    table = torch.stack([getattr(pairs, field.name) for field in fields(PairLogps)], 1).tolist()
    return [Row(*line) for line in table]


@pytest.mark.parametrize("loss", sorted(PAPERS))
def test_each_loss_is_its_papers_formula_with_each_pairs_own_doubt(loss):
    expected = [
        doubt_by_hand(loss, row, eps) for row, eps in zip(rows_of(PAIRS), FLIPS.tolist(), strict=True)
    ]
    assert pair_losses(PAIRS, FLIPS, ONES, told(loss)).tolist() == pytest.approx(expected, abs=1e-9)


def test_exo_is_the_divergence_from_the_doubtful_distribution():
    expected = [exo_by_hand(row, eps) for row, eps in zip(rows_of(PAIRS), FLIPS.tolist(), strict=True)]
    assert pair_losses(PAIRS, FLIPS, ONES, told("exo")).tolist() == pytest.approx(expected, abs=1e-9)


def test_aot_compares_equal_quantiles_and_doubts_by_the_policys_pair():
    # Policy gaps 3, 5, -0.5 and reference gaps 0, -1, -3.5: sorted, the last meets the last, and so on.
    gaps = {0: 3.0 - -1.0, 1: 5.0 - 0.0, 2: -0.5 - -3.5}
    expected = [
        (1 - eps) * log(1 + exp(-BETA * gaps[i])) + eps * log(1 + exp(BETA * gaps[i]))
        for i, eps in enumerate(FLIPS.tolist())
    ]
    assert pair_losses(PAIRS, FLIPS, ONES, told("aot")).tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        ("sigmoid", 0.2014132779827524),  # log(1 + e^-1.5)
        ("hinge", 0.0),
        ("ipo", 0.09),  # (2/4 + 1/5 - 1)^2
        ("apo_zero", 2 * 0.2689414213699951 + 0.3775406687981454 - 0.2689414213699951),
        ("apo_down", 0.7310585786300049 + 0.1824255238063563),
        ("sigmoid_norm", 0.533382),  # log(1 + e^-0.35)
        ("simpo", 1.005492),  # log(1 + e^0.55): -0.75 + 0.9 - 0.7 is -0.55
    ],
)
def test_the_first_pair_by_a_calculator(loss, value):
    no_doubt = torch.zeros(3, dtype=torch.float64)
    assert pair_losses(PAIRS, no_doubt, ONES, told(loss))[0].item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("loss", sorted(set(LOSSES) - REFERENCE_FREE))
def test_at_the_reference_each_loss_has_its_known_value(loss):
    here = replace(PAIRS, chosen=PAIRS.ref_chosen, rejected=PAIRS.ref_rejected)
    known = {
        "hinge": 1.0,
        "ipo": (1 / (2 * BETA)) ** 2,
        "apo_zero": 1.0,
        "apo_down": 1.0,
        "exo": 0.5 * log(0.5 / 0.9) + 0.5 * log(0.5 / 0.1),
    }
    found = pair_losses(here, torch.full_like(FLIPS, 0.1), ONES, told(loss))
    assert found.tolist() == pytest.approx([known.get(loss, log(2))] * 3, abs=1e-9)


def test_rewards_are_in_the_terms_of_the_loss():
    assert implicit_rewards(PAIRS, told("cdpo"))[0].tolist() == [1.0, -1.0, 0.75]
    assert implicit_rewards(PAIRS, told("simpo"))[1].tolist() == pytest.approx([-0.9, -0.75, -1.25])
    assert implicit_rewards(PAIRS, told("orpo"))[0].tolist() == pytest.approx([-0.45, -1.05, -0.3])


def test_wpo_counts_an_answer_by_its_tokens_odds_against_what_the_policy_draws():
    # Uniform over 4 words: log(1/4) - log(4/16) is 0 for each token, so such an answer counts 1.
    uniform = log(1 / 4) - log(4 * (1 / 4) ** 2)
    weights = wpo_weights(column(uniform, log(0.5)), column(uniform, log(0.1)))
    assert weights.tolist() == pytest.approx([1.0, 0.05])


# What weight, flip and swapping mean, for any pairs.

logps = st.floats(-60, -0.5)
lengths = st.integers(1, 40)
random_pairs = st.lists(st.tuples(logps, logps, logps, logps, lengths, lengths), min_size=2, max_size=6)
flips = st.floats(0.01, 0.45)
any_loss = st.sampled_from(LOSSES)
few = settings(max_examples=60, deadline=None)


def total(pairs, flip, weight, loss):
    return float((pair_losses(pairs, flip, weight, told(loss)) * weight).sum())


@few
@given(random_pairs, flips, any_loss)
def test_a_pair_of_weight_zero_is_no_pair(rows, flip, loss):
    weight = torch.ones(len(rows), dtype=torch.float64)
    weight[0] = 0
    doubt = torch.linspace(flip, 0.45, len(rows), dtype=torch.float64)
    without = total(batch(*rows[1:]), doubt[1:], weight[1:], loss)
    assert total(batch(*rows), doubt, weight, loss) == pytest.approx(without, rel=1e-9, abs=1e-9)


@few
@given(random_pairs, flips, any_loss)
def test_a_pair_of_weight_two_is_two_pairs(rows, flip, loss):
    weight = torch.ones(len(rows), dtype=torch.float64)
    weight[0] = 2
    doubt = torch.linspace(flip, 0.45, len(rows), dtype=torch.float64)
    twice = batch(rows[0], *rows), torch.cat([doubt[:1], doubt])
    expected = total(*twice, torch.ones(len(rows) + 1, dtype=torch.float64), loss)
    assert total(batch(*rows), doubt, weight, loss) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@few
@given(random_pairs, flips)
def test_robust_losses_of_labels_flipped_that_often_average_to_the_clean_loss(rows, flip):
    pairs, eps = batch(*rows), torch.full((len(rows),), flip, dtype=torch.float64)

    def robust(of, doubt):
        return remove_bias(lambda these: dpo(these, BETA), of, doubt)

    average = (1 - eps) * robust(pairs, eps) + eps * robust(pairs.swapped(), eps)
    assert torch.allclose(average, dpo(pairs, BETA), atol=1e-8)


@few
@given(random_pairs, st.sampled_from(sorted(set(LOSSES) - {"sigmoid", "robust", "exo", "aot"})))
def test_a_label_that_is_a_coin_toss_prefers_neither_answer(rows, loss):
    pairs, half = batch(*rows), torch.full((len(rows),), 0.5, dtype=torch.float64)
    weight = torch.ones_like(half)
    here, there = (pair_losses(these, half, weight, told(loss)) for these in (pairs, pairs.swapped()))
    assert torch.allclose(here, there)


@few
@given(random_pairs, st.sampled_from(sorted(set(LOSSES) - {"ipo", "exo", "robust"})))
def test_a_less_likely_rejected_answer_never_raises_a_sure_pairs_loss(rows, loss):
    pairs = batch(*rows)
    rejected = pairs.rejected.clone().requires_grad_()
    none, weight = torch.zeros_like(rejected), torch.ones_like(rejected)
    pair_losses(replace(pairs, rejected=rejected), none, weight, told(loss)).sum().backward()
    assert (rejected.grad >= -1e-12).all()


@few
@given(st.lists(st.tuples(logps, logps, st.floats(0, 3)), min_size=1, max_size=6))
def test_quantiles_are_coupled_without_losing_mass(rows):
    one, other, weight = torch.tensor(rows, dtype=torch.float64).T
    here, there, mass = couple_quantiles(one, other, weight)
    for index in (here, there):
        assert torch.allclose(torch.zeros_like(weight).index_add(0, index, mass), weight, atol=1e-9)
    used = mass > 1e-9
    assert (one[here][used].diff() >= 0).all()
    assert (other[there][used].diff() >= 0).all()


def test_aot_has_a_gradient_only_through_the_policy():
    chosen = PAIRS.chosen.clone().requires_grad_()
    aot(replace(PAIRS, chosen=chosen), FLIPS, ONES, BETA).sum().backward()
    assert (chosen.grad < 0).any()
    assert torch.isfinite(chosen.grad).all()


def test_ipo_under_doubt_aims_at_a_smaller_gap():
    # (1 - eps)(h - t)^2 + eps (h + t)^2 is smallest at (1 - 2 eps) t.
    gaps = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    zeros, ones = torch.zeros_like(gaps), torch.ones_like(gaps)
    pairs = PairLogps(gaps, zeros, zeros, zeros, ones, ones)
    losses = pair_losses(pairs, torch.full_like(gaps, 0.2), ones, told("ipo"))
    assert gaps[losses.argmin()].item() == pytest.approx(0.6 * 1 / (2 * BETA), abs=1e-3)


def test_conservative_dpo_is_the_expected_sigmoid_loss():
    found = expect_flips(lambda pairs: dpo(pairs, BETA), PAIRS, FLIPS)
    assert torch.equal(found, pair_losses(PAIRS, FLIPS, ONES, told("cdpo")))


# Ratings.

RATINGS = RatingLogps(
    policy=column(-5.0, -9.0, -4.0),
    reference=column(-6.0, -7.0, -4.5),
    kl=column(-20.0, -18.0, -15.0),
    ref_kl=column(-21.0, -19.5, -15.5),
)
DESIRABLE = torch.tensor([True, False, True])


def test_kto_is_measured_from_the_batchs_mean_gain_on_other_prompts():
    baseline = (1.0 + 1.5 + 0.5) / 3
    expected = [
        1 - sigmoid(BETA * (1.0 - baseline)),
        1 - sigmoid(BETA * (baseline + 2.0)),
        1 - sigmoid(BETA * (0.5 - baseline)),
    ]
    assert kto(RATINGS, DESIRABLE, BETA).tolist() == pytest.approx(expected, abs=1e-9)


def test_ktos_baseline_is_never_below_zero():
    falling = replace(RATINGS, kl=RATINGS.ref_kl - 5.0)
    assert kto(falling, DESIRABLE, BETA)[0].item() == pytest.approx(1 - sigmoid(BETA * 1.0))


def test_apo_zero_unpaired_has_no_baseline():
    expected = [1 - sigmoid(BETA * 1.0), sigmoid(BETA * -2.0), 1 - sigmoid(BETA * 0.5)]
    assert apo_zero_unpaired(RATINGS, DESIRABLE, BETA).tolist() == pytest.approx(expected, abs=1e-9)


def test_a_pair_split_in_two_ratings_has_the_apo_zero_loss_of_the_pair():
    first = replace(PAIRS)
    halves = [
        apo_zero_unpaired(RatingLogps(policy, reference, policy, policy), torch.tensor([side] * 3), BETA)
        for policy, reference, side in (
            (first.chosen, first.ref_chosen, True),
            (first.rejected, first.ref_rejected, False),
        )
    ]
    no_doubt = torch.zeros(3, dtype=torch.float64)
    assert torch.allclose(sum(halves), pair_losses(PAIRS, no_doubt, ONES, told("apo_zero")))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loss": "simpo", "start": "previous", "reference": "previous"}, "loss 'simpo' has no reference"),
        ({"loss": "exo", "label_smoothing": 0.0}, "loss 'exo' is infinite at label_smoothing 0"),
        ({"loss": "orpo", "sft_weight": 0.0}, "loss 'orpo' needs its likelihood term"),
        ({"loss": "aot", "wpo": True}, "wpo cannot weigh loss 'aot'"),
        ({"loss": "aot", "batch_size": 1}, "loss 'aot' compares the pairs of a batch"),
        ({"wpo": True, "batch_size": 1}, "wpo compares the pairs of a batch"),
        ({"simpo_gamma": -1.0}, "simpo_gamma -1.0 cannot be negative"),
        ({"orpo_weight": 0.0}, "orpo_weight 0.0 must be greater than 0"),
        ({"kto_batch_size": 1}, "kto_batch_size 1 must be at least 2"),
    ],
)
def test_an_impossible_combination_is_refused_with_its_reason(changes, says):
    with pytest.raises(ValueError, match=says):
        TrainerSettings(**changes)


def test_ratings_without_a_kl_term_may_come_one_at_a_time():
    assert TrainerSettings(rating_loss="apo_zero_unpaired", kto_batch_size=1).kto_batch_size == 1


def test_orpo_has_a_loss_and_a_gradient_for_answers_the_policy_is_sure_of():
    """Infinite odds minus infinite odds once made the whole batch not a number."""
    logps = torch.zeros(2, requires_grad=True)
    tokens, none = torch.full((2,), 5.0), torch.zeros(2)
    loss = odds_ratio(PairLogps(logps, none, none, none, tokens, tokens), 1.0)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([log(2)] * 2)
    assert logps.grad is not None
    assert torch.isfinite(logps.grad).all()
