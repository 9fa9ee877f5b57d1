"""How far the judge and our people agree, ties included, beyond what chance would give.

Whether its labels are trained on is decided where rows are built, by the same kappa over decided pairs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from store.agreement import measure_kappa
from store.judge_verdicts import CommonTask

CODES = {"first": 0, "second": 1, "tie": 2}


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cohen's kappa over `n` common tasks with its 95 % interval; None with the reason in `says`."""

    n: int
    agreed: int
    kappa: float | None
    low: float | None
    high: float | None
    says: str


def measure_agreement(common: Sequence[CommonTask]) -> Agreement:
    """Kappa of the verdicts first, second and tie."""
    agreed = sum(task.by_judge == task.by_people for task in common)
    measured = measure_kappa(
        [CODES[task.by_people] for task in common], [CODES[task.by_judge] for task in common]
    )
    if measured.value is None:
        return Agreement(len(common), agreed, None, None, None, measured.why)
    figures = f"kappa {measured.value:.2f} ({measured.low:.2f} to {measured.high:.2f}), ties included,"
    says = f"{figures} on {len(common)} common tasks, {agreed} of them alike"
    return Agreement(len(common), agreed, measured.value, measured.low, measured.high, says)
