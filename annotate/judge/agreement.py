"""How far the judge and our people agree, beyond what chance would give. Numbers in, numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from store.verdicts import CommonTask

Z_95 = 1.959963984540054


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
    """Kappa of the verdicts first, second and tie.

    The interval is kappa ± 1.96 sqrt(p_o (1 - p_o) / (n (1 - p_e)²)), Cohen's large-sample error.
    """
    n = len(common)
    agreed = sum(task.by_judge == task.by_people for task in common)
    if not n:
        return Agreement(0, 0, None, None, None, "undefined: no task was decided by people and the judge yet")
    judge = Counter(task.by_judge for task in common)
    people = Counter(task.by_people for task in common)
    expected = sum(judge[verdict] * people[verdict] for verdict in judge) / n**2
    if expected >= 1.0:
        return Agreement(n, agreed, None, None, None, "undefined: both always gave the same one verdict")
    observed = agreed / n
    kappa = (observed - expected) / (1 - expected)
    error = Z_95 * sqrt(observed * (1 - observed) / n) / (1 - expected)
    low, high = max(-1.0, kappa - error), min(1.0, kappa + error)
    says = f"kappa {kappa:.2f} ({low:.2f} to {high:.2f}) on {n} common tasks, {agreed} of them alike"
    return Agreement(n, agreed, kappa, low, high, says)
