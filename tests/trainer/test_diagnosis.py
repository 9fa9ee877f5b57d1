"""Each rule is triggered by a curve that shows what it looks for, and a real healthy round triggers none.

`recorded/starter_progress.jsonl` holds every fourth step of a round of the starter policy on 173 pairs of
simulated annotators; its chosen answers are half as long as the rejected ones, which is what they liked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.watched import standing, train_watched
from trainer.curves import StageCurves, read_lines, read_stages
from trainer.diagnosis import RULES, diagnose
from trainer.findings import Told, loss_at_zero_margin, read_told
from trainer.losses import PairLogps, exo
from trainer.progress import ProgressLog
from trainer.settings import TrainerSettings

RECORDED = Path(__file__).parent / "recorded" / "starter_progress.jsonl"
LN_2 = math.log(2)
STEPS = 40
Curve = Callable[[float], float | None]  # of the share of the steps, 0 to 1

HEALTHY: dict[str, Curve] = {
    "loss": lambda t: LN_2 - 0.3 * t,
    "rewards/chosen": lambda t: 0.6 * t,
    "rewards/rejected": lambda t: -0.8 * t,
    "rewards/margins": lambda t: 1.4 * t,
    "rewards/accuracies": lambda t: 0.5 + 0.3 * t,
    "drift/chosen": lambda t: 0.3 * t,
    "drift/rejected": lambda t: -0.4 * t,
    "learning_rate": lambda t: 1e-4 * (1 - t),
    "grad_norm": lambda _: 1.0,
    "entropy": lambda t: 1.0 - 0.2 * t,
    "lengths/chosen": lambda _: 20.0,
    "lengths/rejected": lambda _: 22.0,
}


def stage(steps: int = STEPS, most: int | None = None, **changes: Curve) -> StageCurves:
    """A healthy stage but for the curves that are given."""
    names = {"accuracy": "rewards/accuracies", "margin": "rewards/margins"}
    for side in ("chosen", "rejected"):
        names |= {
            side: f"rewards/{side}",
            f"{side}_drift": f"drift/{side}",
            f"{side}_length": f"lengths/{side}",
        }
    curves = HEALTHY | {names.get(name, name): curve for name, curve in changes.items()}
    most = most or steps
    lines: list[dict[str, Any]] = [
        {"stage": "dpo", "step": step, "max_steps": most}
        | {name: curve((step - 1) / max(most - 1, 1)) for name, curve in curves.items()}
        for step in range(1, steps + 1)
    ]
    return read_stages(lines)[0]


def rules(found: StageCurves, told: Told | None = None) -> list[str]:
    return [finding.rule for finding in diagnose(found, told or Told())]


ILL: dict[str, tuple[dict[str, Any], Told]] = {
    "non_finite": ({"loss": lambda t: None if 0.4 < t < 0.5 else LN_2 - 0.3 * t}, Told()),
    "start_off": ({"margin": lambda t: 0.5 + 1.4 * t, "loss": lambda t: 0.47 - 0.2 * t}, Told()),
    "served_otherwise": ({"recorded/apart": lambda _: 0.3}, Told()),
    "accuracy_early": ({"accuracy": lambda t: min(0.5 + 6 * t, 1.0)}, Told()),
    "accuracy_low": ({"accuracy": lambda _: 0.5}, Told()),
    "both_fall": ({"chosen": lambda t: -2.0 * t, "rejected": lambda t: -3.4 * t}, Told()),
    "both_rise": ({"chosen": lambda t: 3.4 * t, "rejected": lambda t: 2.0 * t}, Told()),
    "parting_early": ({"margin": lambda t: min(30 * t, 4.0)}, Told()),
    "held_out_parting": ({"eval_loss": lambda t: 0.6 + (t - 0.4) ** 2}, Told()),
    "small_steps": (
        dict.fromkeys(("chosen", "rejected", "margin"), lambda _: 1e-4) | {"loss": lambda _: LN_2},
        Told(),
    ),
    "nothing_learned": (
        {
            "margin": lambda t: 0.3 * math.sin(90 * t),
            "loss": lambda t: LN_2 + 0.01 * math.sin(70 * t),
            "chosen": lambda t: 0.5 * t,
            "rejected": lambda t: 0.1 * math.sin(30 * t) - 0.02,
        },
        Told(),
    ),
    "loss_rising": ({"loss": lambda t: LN_2 + 0.4 * t}, Told()),
    "entropy_falls": ({"entropy": lambda t: 1.0 - 0.8 * t}, Told()),
    "entropy_rises": ({"entropy": lambda t: 1.0 + 1.5 * t}, Told()),
    "drift": ({"rejected_drift": lambda t: -3.0 * t}, Told()),
    "length_bias": ({"chosen_length": lambda _: 40.0}, Told()),
    "rate_not_decayed": ({"learning_rate": lambda _: 1e-4}, Told(schedule="constant")),
}  # fmt: skip


@pytest.mark.parametrize("rule", ILL)
def test_a_rule_fires_on_the_curve_it_looks_for_and_says_what_to_do(rule: str) -> None:
    curves, told = ILL[rule]
    found = {finding.rule: finding for finding in diagnose(stage(**curves), told)}
    assert rule in found
    finding = found[rule]
    assert "--" in finding.advice or "Quality" in finding.advice or "pairs" in finding.advice
    assert any(character.isdigit() for character in finding.shows)
    assert finding.means


def test_every_rule_has_a_curve_here_that_triggers_it() -> None:
    fired = {
        rule.find.__name__
        for rule in RULES
        for curves, told in ILL.values()
        if rule.find(stage(**curves), told) is not None
    }
    assert fired == {rule.find.__name__ for rule in RULES}


def test_a_healthy_stage_says_so_with_its_numbers() -> None:
    (finding,) = diagnose(stage(), Told())
    assert (finding.rule, finding.severity) == ("healthy", "good")
    assert "0.693" in finding.shows


@pytest.mark.parametrize("rule", sorted(set(ILL) - {"non_finite", "start_off", "served_otherwise"}))
def test_a_rule_says_nothing_of_a_few_steps(rule: str) -> None:
    curves, told = ILL[rule]
    assert rules(stage(steps=6, most=STEPS, **curves), told) == ["too_short"]
    assert rules(stage(steps=6, **curves), told) == ["too_short"]


def test_a_real_round_of_the_starter_has_nothing_wrong() -> None:
    (real,) = read_stages([json.loads(line) for line in RECORDED.read_text().splitlines()])
    trainer = {
        "beta": 0.3,
        "label_smoothing": 0.1,
        "sft_weight": 12.0,
        "start": "fresh",
        "schedule": "linear",
    }
    gate = {"checks": [{"name": "holdout_accuracy", "value": 0.81, "noise_floor": 0.088}]}
    told = read_told(real, {"trainer": trainer, "live_adapter": None}, gate, is_first=True)
    assert told.starts_at_reference
    assert [(f.rule, f.severity) for f in diagnose(real, told)] == [("length_bias", "note")]
    # The same round half way, when nobody has measured a held-out pair yet.
    half = replace(real, last_step=176, series={name: s.between(0, 0.5) for name, s in real.series.items()})
    assert rules(half, replace(told, held_out_accuracy=None)) == ["length_bias"]


def test_easy_labels_are_not_taken_for_overfitting() -> None:
    easy = stage(accuracy=lambda t: min(0.5 + 6 * t, 1.0))
    assert "accuracy_early" in rules(easy)
    assert "accuracy_early" in rules(easy, Told(held_out_accuracy=0.6))
    assert rules(easy, Told(held_out_accuracy=0.97)) == ["healthy"]


def test_held_out_accuracy_of_the_gate_far_below_the_trainings_is_overfitting() -> None:
    assert "held_out_parting" in rules(stage(), Told(held_out_accuracy=0.5, held_out_noise=0.05))
    assert rules(stage(), Told(held_out_accuracy=0.5, held_out_noise=0.15)) == ["healthy"]


def watched(progress: ProgressLog, tmp_path: Path, losses: list[float], every: int = 10) -> StageCurves:
    """A stage whose training loss falls and whose held-out losses are these, as a round logs it."""
    train_watched(progress, "dpo", [standing(loss) for loss in losses], every=every)
    return read_stages(read_lines(tmp_path / "progress.jsonl"))[0]


def test_held_out_loss_that_rises_in_a_rounds_own_lines_is_overfitting(
    progress: ProgressLog, tmp_path: Path
) -> None:
    found = diagnose(watched(progress, tmp_path, [0.69, 0.60, 0.63, 0.66, 0.70]), Told())
    (parting,) = [finding for finding in found if finding.rule == "held_out_parting"]
    assert "Held-out loss was lowest, 0.600, at step 20 and is 0.700 now" in parting.shows


@pytest.mark.parametrize("losses", [[0.69, 0.60, 0.66], [0.68, 0.585, 0.63, 0.59, 0.58, 0.625, 0.585, 0.62]])
def test_held_out_loss_that_only_goes_up_and_down_is_no_overfitting(
    progress: ProgressLog, tmp_path: Path, losses: list[float]
) -> None:
    assert "held_out_parting" not in rules(watched(progress, tmp_path, losses))


def test_held_out_loss_is_held_against_the_preference_part_of_the_loss() -> None:
    """The likelihood term falls for long after the preferences are known by heart."""
    rising: dict[str, Curve] = {"eval_loss": lambda t: 0.6 + (t - 0.4) ** 2, "loss": lambda t: 9.0 - 3 * t}
    assert "held_out_parting" in rules(stage(**rising, **{"loss/preference": lambda t: LN_2 - 0.3 * t}))
    assert "held_out_parting" not in rules(stage(**rising, **{"loss/preference": lambda _: LN_2}))


def test_a_round_that_continues_from_live_need_not_start_at_ln_2() -> None:
    curves, told = ILL["start_off"]
    assert rules(stage(**curves), replace(told, starts_at_reference=False)) == ["healthy"]


def test_where_a_stage_starts_is_read_from_the_plan() -> None:
    def starts(is_first: bool = True, live: str | None = "policies/v1", **trainer: str) -> bool:
        plan = {"trainer": trainer, "live_adapter": live}
        return read_told(stage(), plan, None, is_first).starts_at_reference

    assert starts(start="fresh", reference="base")
    assert starts(start="previous", reference="previous")
    assert not starts(start="previous", reference="base")
    assert starts(start="previous", reference="base", live=None)
    assert not starts(start="fresh", reference="base", is_first=False)


def test_a_likelihood_term_hides_nothing_when_the_preference_part_is_logged() -> None:
    told = Told(sft_weight=12.0)
    with_term: dict[str, Curve] = {"loss": lambda t: 4.0 - 3 * t, "loss/preference": lambda t: LN_2 - 0.3 * t}
    assert rules(stage(**with_term), told) == ["healthy"]
    with_term["loss/preference"] = lambda t: 0.6 - 0.3 * t
    assert rules(stage(**with_term), told) == ["start_off"]


@pytest.mark.parametrize(
    ("told", "value"),
    [
        (Told(loss="sigmoid"), LN_2),
        (Told(loss="robust"), LN_2),
        (Told(loss="hinge"), 1.0),
        (Told(loss="ipo", beta=0.1), 25.0),
        (Told(loss="exo", label_smoothing=0.1), 0.5108),
        (Told(loss="exo_pair", label_smoothing=1e-3), 2.7612),
        (Told(loss="simpo"), None),
        (Told(loss="kto"), None),
    ],
)
def test_a_loss_starts_where_its_own_formula_says(told: Told, value: float | None) -> None:
    assert loss_at_zero_margin(told) == (value if value is None else pytest.approx(value, abs=1e-4))


def exo_start(flips: list[float], margin: float = 0.0) -> StageCurves:
    """A stage whose first loss is exo's of a batch with these doubts, its policy so far off the reference."""
    zeros = torch.zeros(len(flips))
    pairs = PairLogps(zeros + margin / 0.1, zeros, zeros, zeros, zeros + 9, zeros + 9)
    first = float(exo(pairs, torch.tensor(flips), 0.1).mean())
    return stage(loss=lambda t: first - 0.1 * t, margin=lambda t: margin + 1.4 * t)


def test_exo_with_doubtful_labels_is_not_taken_for_a_wrong_reference() -> None:
    """The rule knew label_smoothing alone, and called an uneven batch a serious fault."""
    told = Told(loss="exo", label_smoothing=0.1)
    assert rules(exo_start([0.1, 0.4, 0.3, 0.45]), told) == ["healthy"]
    assert "start_off" in rules(exo_start([0.1, 0.4, 0.3, 0.45], margin=0.5), told)


def test_a_stage_whose_every_loss_was_broken_is_still_described() -> None:
    broken = stage(loss=lambda _: None, grad_norm=lambda _: None)
    assert rules(broken)[0] == "non_finite"


def test_advice_for_kto_names_its_own_rate() -> None:
    (finding,) = [f for f in diagnose(stage(loss=lambda t: 0.5 + 0.4 * t), Told(stage="kto", loss="kto"))
                  if f.rule == "loss_rising"]  # fmt: skip
    assert "--trainer.kto-learning-rate" in finding.advice


def test_advice_for_a_stage_names_flags_that_the_trainer_has() -> None:
    known = {f"--trainer.{field.name.replace('_', '-')}" for field in fields(TrainerSettings)}
    for name in ("dpo", "kto", "sft"):
        told = Told(stage=name)
        assert {told.flag(setting) for setting in ("learning-rate", "epochs", "batch-size")} <= known
    assert Told(stage="sft").flag("learning-rate") == "--trainer.sft-learning-rate"
