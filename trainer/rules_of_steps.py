"""Rules about the training itself: where it starts, how far its steps lead, and what they do to the policy.

Knows no other rule; `diagnosis.py` says where they come from and asks them all.
"""

from __future__ import annotations

from trainer.curves import RECORDED, StageCurves
from trainer.findings import MOST, Finding, Told, first_quarter, last_quarter, loss_at_zero_margin

START_TOLERANCE = 0.02  # nats; a reference kept in another precision is off by 2e-4
# Nats a token. On the starter the same weights are 3e-7 apart in float32 and 0.0016 in bfloat16, serving in
# one and training in the other 0.002; another chat template is 0.5 to 2.3.
SERVED_TOLERANCE = 0.02


def find_non_finite(stage: StageCurves, told: Told) -> Finding | None:
    """Our own: a step whose loss or gradient is not a number was skipped, or has spoilt the adapter."""
    broken = sorted({*stage["loss"].broken, *stage["grad_norm"].broken})
    if not broken:
        return None
    return Finding(
        "non_finite",
        "serious",
        "Some steps were not numbers",
        f"Loss or gradient was not finite at {len(broken)} of {stage.last_step} steps, first at step"
        f" {broken[0]}.",
        "Such a step is skipped; several of them mean that training diverges.",
        f"Lower {told.flag('learning-rate')} to a third, and look at the pairs with the longest answers.",
    )


def find_start_off(stage: StageCurves, told: Told) -> Finding | None:
    """The guide: loss starts near ln 2, because policy and reference are equal; other losses have a value of
    their own. Silent where the policy is meant to start elsewhere."""
    # exo starts where the doubt about each pair of the first batch says, which nobody logs: its margin tells.
    expected = None if told.loss in ("exo", "exo_pair") else loss_at_zero_margin(told)
    if not told.starts_at_reference or not told.has_reference or stage["loss"].steps[:1] != (1,):
        return None  # logged later than at the first step, a loss has moved already
    preference = stage["loss/preference"] or (stage["loss"] if not told.sft_weight else None)
    margin = stage["rewards/margins"].first if stage["rewards/margins"] else 0.0
    is_off = expected is not None and preference and abs(preference.first - expected) > START_TOLERANCE
    if not is_off and abs(margin) <= START_TOLERANCE:
        return None
    loss = f"The first loss is {preference.first:.4f}; " if preference else ""
    wanted = f"it should be {expected:.4f}. " if expected is not None and preference else ""
    return Finding(
        "start_off",
        "serious",
        "Training does not start at the reference",
        f"{loss}{wanted}The first margin is {margin:.4f} and should be 0.",
        "At the first step policy and reference are the same, so nothing can be preferred yet: the reference"
        " is not the one that was meant, or it is computed differently.",
        "Check --trainer.start and --trainer.reference, and that the base has not changed since the live"
        " adapter was trained.",
    )


def find_served_otherwise(stage: StageCurves, _: Told) -> Finding | None:
    """Our own: the reference's log-probs of its own answers are not those it had when it gave them."""
    apart = stage[RECORDED]
    if not apart or apart.last <= SERVED_TOLERANCE:
        return None
    return Finding(
        "served_otherwise",
        "serious",
        "Training reads answers otherwise than serving gave them",
        f"The reference's own answers are {apart.last:.3f} nats a token from what was recorded when it gave"
        " them; the same weights after the same prompt would be at 0.",
        "What people judged was said after another prompt, by other weights or in another precision than"
        " training computes with, so policy and reference are compared where nobody spoke.",
        "Check that --model, --chat-template, --quantization and --dtype are those the answers were given"
        " with, on a vLLM server too.",
    )


def _has_barely_moved(stage: StageCurves, told: Told) -> bool:
    """No mean answer became 10 % more or less likely than under the reference."""
    rewards = [last_quarter(stage, f"rewards/{side}") for side in ("chosen", "rejected")]
    return all(rewards) and all(abs(reward.mean()) / told.beta < 0.1 for reward in rewards)


def find_small_steps(stage: StageCurves, told: Told) -> Finding | None:
    """Our own (the guide's "model changes too little"): after most of the steps neither side's answers are
    even 10 % more or less likely than under the reference, which is 0.1 nats an answer."""
    if stage.progress < MOST or not told.starts_at_reference or not told.has_reference:
        return None
    if not _has_barely_moved(stage, told):
        return None
    chosen, rejected = (
        last_quarter(stage, f"rewards/{side}").mean() / told.beta for side in ("chosen", "rejected")
    )
    rate = f" The highest learning rate was {max(stage['learning_rate'].values):.2g}." if stage[
        "learning_rate"
    ] else ""  # fmt: skip
    return Finding(
        "small_steps",
        "warning",
        "The policy has hardly moved",
        f"The average chosen answer moved by {chosen:+.3f} nats, the rejected one by {rejected:+.3f}.{rate}",
        "The steps are too small, or too few, to change what the model says.",
        f"Raise {told.flag('learning-rate')} three to ten times, or {told.flag('epochs')}; a lower"
        " --trainer.beta also lets it move further.",
    )


def find_nothing_learned(stage: StageCurves, told: Told) -> Finding | None:
    """Our own: after most of the steps the margin does not stand out from its noise and the loss has not
    fallen, although the policy did move."""
    margin = last_quarter(stage, "rewards/margins")
    before, after = first_quarter(stage, "loss"), last_quarter(stage, "loss")
    if stage.progress < MOST or not margin or not after or _has_barely_moved(stage, told):
        return None
    if margin.mean() > 2 * margin.noise() or after.mean() < before.mean() - 2 * after.noise():
        return None
    return Finding(
        "nothing_learned",
        "warning",
        "Nothing was learned from the labels",
        f"The margin averages {margin.mean():+.3f} (noise {margin.noise():.3f}) over the last quarter, and"
        f" the loss {after.mean():.3f} after {before.mean():.3f}.",
        "The policy moves but no preference comes of it: the labels may contradict each other.",
        "Look at agreement, gold accuracy and flags under Quality before changing any setting.",
    )


def find_loss_rising(stage: StageCurves, told: Told) -> Finding | None:
    """Our own: the last quarter's loss is above the first's by more than noise and 2 %."""
    before, after = first_quarter(stage, "loss"), last_quarter(stage, "loss")
    if not after or after.mean() <= before.mean() + max(
        0.02 * abs(before.mean()), 3 * (before.noise() + after.noise())
    ):
        return None
    return Finding(
        "loss_rising",
        "serious",
        "The loss rises",
        f"It averages {after.mean():.3f} over the last quarter after {before.mean():.3f} over the first.",
        "Training works against itself: the steps are too large.",
        f"Lower {told.flag('learning-rate')} to a third, or raise --trainer.warmup.",
    )


def find_entropy_drift(stage: StageCurves, told: Told) -> Finding | None:
    """The guide: degenerate output comes of too aggressive training. Ours: entropy at the answers' tokens
    halved or grew by half, the gate's bounds for what the candidate writes itself."""
    before, after = first_quarter(stage, "entropy"), last_quarter(stage, "entropy")
    if not before or before.mean() <= 0 or 0.5 <= after.mean() / before.mean() <= 1.5:
        return None
    falls = after.mean() < before.mean()
    return Finding(
        f"entropy_{'falls' if falls else 'rises'}",
        "warning",
        f"Entropy {'collapses' if falls else 'grows'}",
        f"It went from {before.mean():.2f} to {after.mean():.2f} nats a token.",
        "Answers become all alike and repeat themselves."
        if falls
        else "Answers become less certain and may turn to noise.",
        f"Raise --trainer.beta, lower {told.flag('learning-rate')}, or train for fewer steps."
        + ("" if falls else f" A larger {told.flag('sft-weight')} holds entropy down."),
    )


def find_drift(stage: StageCurves, told: Told) -> Finding | None:
    """The guide: low beta, high rate or many epochs drive the policy too far. The budget is the gate's
    (`--gate.max-drift`), in nats a token."""
    drifts = {side: last_quarter(stage, f"drift/{side}") for side in ("chosen", "rejected")}
    far = {
        side: drift.mean() for side, drift in drifts.items() if drift and abs(drift.mean()) > told.max_drift
    }
    if not far:
        return None
    sides = " and ".join(f"{side} answers by {drift:+.2f}" for side, drift in far.items())
    return Finding(
        "drift",
        "warning",
        "The policy is far from the reference",
        f"Over the last quarter it moved {sides} nats a token; the budget is {told.max_drift:g}.",
        "Abilities it had may be lost, and the gate is likely to refuse it.",
        f"Raise --trainer.beta, lower {told.flag('learning-rate')}, or train for fewer steps.",
    )


def find_length_bias(stage: StageCurves, told: Told) -> Finding | None:
    """The guide's check_length_statistics: chosen over rejected outside 0.67..1.5 is a possible length bias,
    the commonest cause of answers that grow too long."""
    lengths = [stage[f"lengths/{side}"] for side in ("chosen", "rejected")]
    if not all(lengths) or told.stage == "sft":
        return None
    chosen, rejected = (length.mean() for length in lengths)
    if rejected <= 0 or 0.67 <= chosen / rejected <= 1.5:
        return None
    longer = chosen > rejected
    return Finding(
        "length_bias",
        "note",
        f"Chosen answers are {'longer' if longer else 'shorter'}",
        f"They have {chosen:.0f} tokens on average and rejected ones {rejected:.0f}: {chosen / rejected:.2f}"
        " times.",
        f"The model may learn that {'long' if longer else 'short'} is good, whatever is said.",
        "If people do not mean that, add pairs in which the"
        f" {'shorter' if longer else 'longer'} answer is chosen, and watch the gate's length ratio.",
    )


def find_rate_not_decayed(stage: StageCurves, told: Told) -> Finding | None:
    """Our own: a finished stage whose last step was as large as its largest ends on the noise of its last
    batches."""
    rate = stage["learning_rate"]
    if not rate or stage.progress < 1.0 or max(rate.values) <= 0 or rate.last < 0.9 * max(rate.values):
        return None
    return Finding(
        "rate_not_decayed",
        "note",
        "The learning rate never came down",
        f"It was {rate.last:.2g} at the last step, and {max(rate.values):.2g} at most.",
        "The adapter carries the noise of its last batches.",
        f"Set --trainer.schedule to linear or cosine (it is {told.schedule}).",
    )
