"""Rules about rewards and accuracy: is what is learned what the labels say, and of more than these pairs.

Knows no other rule; `diagnosis.py` says where they come from and asks them all.
"""

from __future__ import annotations

from trainer.curves import Series, StageCurves
from trainer.findings import MOST, NOT_LOGITS, Finding, Told, early, last_quarter

SURE = 2.944  # ln 19: chosen is taken to be better at 95 %
FEWEST_NOISE = 0.11  # standard error of an accuracy on 20 pairs, the fewest that are watched as held out


def find_accuracy_early(stage: StageCurves, told: Told) -> Finding | None:
    """The guide: accuracy above 0.95 often indicates overfitting. Early is the second sixth of the steps.
    Silent when held-out pairs are told apart as well: then the labels are simply easy."""
    window = early(stage, "rewards/accuracies", 1 / 6, 1 / 3)
    if len(window) < 3 or window.mean() <= 0.95:
        return None
    held_out = told.held_out_accuracy
    if held_out is not None and held_out + 2 * told.held_out_noise > 0.95:
        return None
    after = f" Held-out pairs reach {held_out:.2f}." if held_out is not None else ""
    return Finding(
        "accuracy_early",
        "warning",
        "Almost every pair is right very early",
        f"Accuracy averages {window.mean():.2f} between steps {window.steps[0]} and {window.steps[-1]} of"
        f" {stage.max_steps}.{after}",
        "The model may learn the pairs by heart, or a trait that gives the answer away, such as length.",
        f"Train for less ({told.flag('epochs')}, --trainer.max-steps), raise --trainer.beta, and compare with"
        " held-out accuracy in the gate.",
    )


def find_accuracy_low(stage: StageCurves, told: Told) -> Finding | None:
    """The guide: accuracy below 0.55 after significant training indicates that the model is not learning."""
    end = last_quarter(stage, "rewards/accuracies")
    if not end or stage.progress < MOST or end.mean() >= 0.55:
        return None
    return Finding(
        "accuracy_low",
        "warning",
        "It still cannot tell chosen from rejected",
        f"Accuracy averages {end.mean():.2f} over the last quarter; 0.50 is guessing.",
        "The model is not learning what the labels say: they contradict each other, or the steps are too"
        " small.",
        f"Look at agreement and disputed tasks under Quality; then raise {told.flag('learning-rate')} or"
        " lower --trainer.beta.",
    )


def find_same_direction(stage: StageCurves, told: Told) -> Finding | None:
    """The guide: if both rewards drift the same way, the model changes its overall behaviour instead of
    learning to discriminate. Ours: the smaller move must be more than half of the margin and of noise."""
    chosen, rejected = last_quarter(stage, "rewards/chosen"), last_quarter(stage, "rewards/rejected")
    if not chosen or not rejected or not told.has_reference or chosen.mean() * rejected.mean() <= 0:
        return None
    smaller = min(abs(chosen.mean()), abs(rejected.mean()))
    noise = max(chosen.noise(), rejected.noise())
    if smaller <= max(0.5 * abs(chosen.mean() - rejected.mean()), 2 * noise, 0.1 * told.beta):
        return None
    falls = chosen.mean() < 0
    way = "fall" if falls else "rise"
    return Finding(
        f"both_{way}",
        "warning",
        f"Both rewards {way}",
        f"Over the last quarter chosen averages {chosen.mean():+.3f} and rejected {rejected.mean():+.3f}.",
        f"Good and bad answers both become {'less' if falls else 'more'} likely: the model moves as a whole"
        " instead of learning to tell them apart.",
        f"Raise {told.flag('sft-weight')}, which keeps chosen answers likely, or raise --trainer.beta."
        if falls
        else f"Lower {told.flag('sft-weight')}, and check that chosen and rejected differ in what they say.",
    )


def find_parting_early(stage: StageCurves, told: Told) -> Finding | None:
    """The guide: rewards that diverge rapidly early are a sign of memorising. Ours: a mean margin of ln 19
    (95 % sure of the average pair) within the first quarter of the steps."""
    window = early(stage, "rewards/margins", 1 / 8, 1 / 4)
    if len(window) < 3 or told.loss in NOT_LOGITS or window.mean() <= SURE:
        return None
    return Finding(
        "parting_early",
        "warning",
        "Chosen and rejected part very fast",
        f"The margin averages {window.mean():.2f} between steps {window.steps[0]} and {window.steps[-1]} of"
        f" {stage.max_steps}; {SURE:.2f} is being 95 % sure.",
        "The model may memorise the training pairs rather than learn what people prefer.",
        f"Lower {told.flag('learning-rate')}, train for less, or set --trainer.label-smoothing to 0.1, which"
        " ends the growth of the margin.",
    )


def find_held_out_parting(stage: StageCurves, told: Told) -> Finding | None:
    """The guide: train and eval metrics that diverge early are classic overfitting. Ours: the held-out loss
    rose by 0.02, 2 % and three times its scatter since from its lowest while the training's preference loss
    fell; or held-out accuracy is 0.15 and two standard errors below the training's."""
    shows = _held_out_loss_rises(stage) or _held_out_accuracy_lags(stage, told)
    if shows is None:
        return None
    return Finding(
        "held_out_parting",
        "warning",
        "Training and held-out pairs part",
        shows,
        "It learns these pairs and not what they have in common: overfitting. There may be too few labels, or"
        " too much alike ones.",
        f"Train for less ({told.flag('epochs')}, --trainer.max-steps), raise --trainer.beta or"
        " --trainer.label-smoothing, and collect more varied prompts.",
    )


def _held_out_loss_rises(stage: StageCurves) -> str | None:
    # What is held out is measured without a likelihood term, so it is compared with what has none either.
    held_out, loss = stage["eval_loss"], stage["loss/preference"] or stage["loss"]
    if len(held_out) < 3:
        return None
    lowest = min(held_out.values)
    place = held_out.values.index(lowest)
    at, rising = held_out.steps[place], Series(held_out.steps[place:], held_out.values[place:])
    since = [value for step, value in zip(loss.steps, loss.values, strict=True) if step >= at]
    # A few dozen pairs: the loss of one evaluation goes up and down by more than 0.02 without any reason.
    scatter = rising.noise() * len(rising) ** 0.5
    if held_out.last <= lowest + max(0.02, 0.02 * abs(lowest), 3 * scatter) or len(since) < 4:
        return None
    half = len(since) // 2
    before, after = sum(since[:half]) / half, sum(since[half:]) / (len(since) - half)
    if after >= before:
        return None
    return (
        f"Held-out loss was lowest, {lowest:.3f}, at step {at} and is {held_out.last:.3f} now, while the"
        f" training loss fell on from {before:.3f} to {after:.3f}."
    )


def _held_out_accuracy_lags(stage: StageCurves, told: Told) -> str | None:
    train = last_quarter(stage, "rewards/accuracies")
    measured = stage["eval_rewards/accuracies"]
    held_out = measured.last if measured else told.held_out_accuracy
    if not train or held_out is None or len(train) < 3:
        return None
    noise = FEWEST_NOISE if told.held_out_accuracy is None else told.held_out_noise
    if train.mean() - held_out <= max(0.15, 2 * noise + 2 * train.noise()):
        return None
    return f"Accuracy is {train.mean():.2f} on the training pairs and {held_out:.2f} on held-out ones."
