"""What a training's curves mean and what to do about it, in words.

The rules are those of the guide "Finetuning LLMs with Direct Preference Optimization" (Jay Kim), sections
"Key Metrics Explained", "The Beta Parameter" and "Common Failure Modes", and a few of our own that say so.
Each needs a number of logged steps before it says anything, and looks at means over a window, never at one
batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trainer import rules_of_rewards as rewards
from trainer import rules_of_steps as steps
from trainer.curves import StageCurves
from trainer.findings import ORDER, Finding, Told, last_quarter


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule and the fewest logged steps under which it says nothing."""

    find: Callable[[StageCurves, Told], Finding | None]
    min_steps: int


FEWEST = 12
RULES = (
    Rule(steps.find_non_finite, 1),
    Rule(steps.find_start_off, 1),
    Rule(steps.find_served_otherwise, 1),
    Rule(rewards.find_accuracy_early, 20),
    Rule(rewards.find_accuracy_low, 20),
    Rule(rewards.find_same_direction, 12),
    Rule(rewards.find_parting_early, 12),
    Rule(rewards.find_held_out_parting, 8),
    Rule(steps.find_small_steps, 12),
    Rule(steps.find_nothing_learned, 12),
    Rule(steps.find_loss_rising, 12),
    Rule(steps.find_entropy_drift, 12),
    Rule(steps.find_drift, 12),
    Rule(steps.find_length_bias, 8),
    Rule(steps.find_rate_not_decayed, 12),
)


def diagnose(stage: StageCurves, told: Told) -> list[Finding]:
    """What the curves of one stage say, the most serious first; a healthy stage says that it is."""
    many = len(stage["loss"]) + len(stage["loss"].broken)
    found = [
        finding
        for rule in RULES
        if many >= rule.min_steps and (finding := rule.find(stage, told)) is not None
    ]
    return sorted(found, key=lambda finding: ORDER.index(finding.severity)) or [_say_healthy(stage, many)]


def _say_healthy(stage: StageCurves, many: int) -> Finding:
    if many < FEWEST:
        shows = f"{many} steps are logged so far; the rules begin at {FEWEST}."
        return Finding("too_short", "note", "Too early to tell", shows, "", "")
    parts = [f"Loss went from {stage['loss'].first:.3f} to {last_quarter(stage, 'loss').mean():.3f}"]
    if stage["rewards/accuracies"]:
        parts.append(f"accuracy to {last_quarter(stage, 'rewards/accuracies').mean():.2f}")
    if stage["rewards/margins"]:
        parts.append(f"the margin to {last_quarter(stage, 'rewards/margins').mean():.2f}")
    means = "No rule finds anything to change."
    return Finding("healthy", "good", "These curves look healthy", ", ".join(parts) + ".", means, "")
