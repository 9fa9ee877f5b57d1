"""What a diagnosis is made of: a finding, what a stage was told, and the windows that rules look through."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainer.curves import Series, StageCurves

Severity = Literal["serious", "warning", "note", "good"]
ORDER: tuple[Severity, ...] = ("serious", "warning", "note", "good")

# What each loss is when policy and reference are equal, so that every margin is 0. {} where that depends on
# more than the settings: losses without a reference do not start at a margin of 0.
_LN_2 = math.log(2.0)
_AT_ZERO_MARGIN = {
    **dict.fromkeys(("cdpo", "sigmoid", "robust", "aot", "aot_unpaired", "sigmoid_norm"), _LN_2),
    **dict.fromkeys(("hinge", "apo_zero", "apo_down"), 1.0),
}
WITHOUT_REFERENCE = ("simpo", "orpo", "sft")
MOST = 0.6  # of the steps: a run that has learned nothing from here on is not just at its beginning
NOT_LOGITS = ("ipo", *WITHOUT_REFERENCE)  # their margin is not the log-odds that chosen is better


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the curves say: what they show with its numbers, what it means, and what to do."""

    rule: str
    severity: Severity
    title: str
    shows: str
    means: str
    advice: str


@dataclass(frozen=True, slots=True)
class Told:
    """What a stage was told, and what its held-out pairs said afterwards; the part that rules need.

    `starts_at_reference`: its first step begins exactly at the reference. `held_out_accuracy` None means that
    nobody has measured it yet; `held_out_noise` is its standard error.
    """

    stage: str = "dpo"
    loss: str = "cdpo"
    beta: float = 0.1
    label_smoothing: float = 0.1
    sft_weight: float = 0.0
    schedule: str = "linear"
    starts_at_reference: bool = True
    max_drift: float = 1.5
    held_out_accuracy: float | None = None
    held_out_noise: float = 0.0

    @property
    def has_reference(self) -> bool:
        """Whether rewards are measured from a reference."""
        return self.loss not in WITHOUT_REFERENCE

    def flag(self, setting: str) -> str:
        """The flag of a setting of this stage: KTO and SFT have a rate and epochs of their own."""
        own = {
            "kto": ("learning-rate", "epochs", "batch-size", "sft-weight"),
            "sft": ("learning-rate", "epochs"),
        }
        has_own = setting in own.get(self.stage, ())
        return f"--trainer.{f'{self.stage}-' if has_own else ''}{setting}"


def loss_at_zero_margin(told: Told) -> float | None:
    """The preference loss while policy and reference are equal; None where it is not known beforehand.

    IPO's is (1 / (2 beta))^2 (arXiv 2310.12036, eq. 17); exo's follows from its label smoothing, for pairs
    that are doubted no more than that.
    """
    if told.loss == "ipo":
        return (1.0 / (2.0 * told.beta)) ** 2
    if told.loss in ("exo", "exo_pair") and 0.0 < told.label_smoothing < 1.0:
        ls = told.label_smoothing
        return -_LN_2 - 0.5 * math.log(1.0 - ls) - 0.5 * math.log(ls)
    return _AT_ZERO_MARGIN.get(told.loss)


def read_told(
    stage: StageCurves, plan: Mapping[str, Any], gate: Mapping[str, Any] | None, is_first: bool
) -> Told:
    """What a stage was told, from round.json and gate.json as they lie; what they do not name has its
    default. A stage after another continues that one's adapter, so only the first can start at the
    reference."""
    trainer = plan.get("trainer", {})
    same = trainer.get("start", "fresh") == "fresh" or not plan.get("live_adapter")
    accuracy = _find_check(gate, "holdout_accuracy")
    default = Told()
    return Told(
        stage=stage.name,
        loss="kto" if stage.name == "kto" else stage.name if stage.name == "sft" else _loss(trainer),
        beta=trainer.get("beta", default.beta),
        label_smoothing=trainer.get("label_smoothing", 0.0),
        sft_weight=trainer.get("kto_sft_weight" if stage.name == "kto" else "sft_weight", 0.0),
        schedule=trainer.get("schedule", default.schedule),
        starts_at_reference=is_first and (same or trainer.get("reference") == "previous"),
        max_drift=plan.get("gate", {}).get("max_drift", default.max_drift),
        held_out_accuracy=accuracy.get("value"),
        held_out_noise=accuracy.get("noise_floor") or 0.0,
    )


def _loss(trainer: Mapping[str, Any]) -> str:
    return str(trainer.get("loss") or "cdpo")


def _find_check(gate: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    checks = (gate or {}).get("checks", ())
    return next((check for check in checks if check.get("name") == name), {})


def early(stage: StageCurves, metric: str, start: float, end: float) -> Series:
    """What a metric was between two shares of *all* the stage's steps, those still to come among them."""
    series = stage[metric]
    low, high = start * stage.max_steps, end * stage.max_steps
    kept = [(s, v) for s, v in zip(series.steps, series.values, strict=True) if low < s <= high]
    return Series(tuple(s for s, _ in kept), tuple(v for _, v in kept))


def first_quarter(stage: StageCurves, metric: str) -> Series:
    """The first quarter of what is logged so far."""
    return stage[metric].between(0.0, 0.25)


def last_quarter(stage: StageCurves, metric: str) -> Series:
    """The last quarter of what is logged so far."""
    return stage[metric].between(0.75, 1.0)
