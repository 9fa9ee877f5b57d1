"""The statistics of agreement: Krippendorff's alpha, Dawid-Skene, Cohen's kappa, intervals of a share.

Arrays in, numbers out: no tables, no people, no tasks.
A number that cannot be had comes as a sentence that says why, never as 0 or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import krippendorff
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

EPS = 1e-10  # below this a probability counts as this, so that no single vote rules a verdict out for ever
Z_95 = 1.959963984540054
MOST_EXACT = 1000  # above so many trials the normal curve stands in for the binomial


@dataclass(frozen=True, slots=True)
class Measure:
    """A number from `n` observations with its 95 % interval, or None and the sentence that says why."""

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    why: str = ""


def measure_alpha(value_counts: Ints) -> Measure:
    """Krippendorff's nominal alpha of counts (tasks, verdicts): 1 is full agreement, 0 what chance gives.

    `n` counts the tasks with at least two verdicts; the others say nothing about agreement.
    """
    shared = value_counts[value_counts.sum(axis=1) >= 2]
    if not len(shared):
        return Measure(None, 0, why="undefined: no task has been judged by two people yet")
    used = np.flatnonzero(shared.sum(axis=0))
    if len(used) < 2:
        why = "undefined: every shared task got the same verdict, so chance cannot be told from agreement"
        return Measure(None, len(shared), why=why)
    value = float(krippendorff.alpha(value_counts=shared[:, used], level_of_measurement="nominal"))
    return Measure(value, len(shared))


def measure_kappa(ours: Sequence[int], theirs: Sequence[int]) -> Measure:
    """Cohen's kappa of two lists of verdicts on the same tasks.

    The interval is kappa ± 1.96 sqrt(p_o (1 - p_o) / (n (1 - p_e)²)), Cohen's large-sample error.
    """
    a, b = np.asarray(ours, dtype=np.int64), np.asarray(theirs, dtype=np.int64)
    n = len(a)
    if not n:
        return Measure(None, 0, why="undefined: there is no task both have judged")
    classes = int(max(a.max(), b.max())) + 1
    expected = float(np.bincount(a, minlength=classes) @ np.bincount(b, minlength=classes)) / n**2
    if expected >= 1.0:
        return Measure(None, n, why="undefined: both always gave the same one verdict")
    observed = float((a == b).mean())
    kappa = (observed - expected) / (1 - expected)
    error = Z_95 * math.sqrt(observed * (1 - observed) / n) / (1 - expected)
    return Measure(kappa, n, max(-1.0, kappa - error), min(1.0, kappa + error))


def measure_share(
    count: float, n: float, why_none: str = "undefined: there is nothing to count yet"
) -> Measure:
    """A share with its Wilson interval, which stays within 0..1 and is honest for small n."""
    if n <= 0:
        return Measure(None, 0, why=why_none)
    share = count / n
    middle = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    return Measure(share, round(n), max(0.0, middle - half), min(1.0, middle + half))


def even_chance(count: int, n: int) -> float:
    """The two-sided chance of a split as uneven as `count` of `n`, or more so, when both sides are alike."""
    extreme = max(count, n - count)
    if 2 * extreme == n or not n:
        return 1.0
    if n > MOST_EXACT:
        return math.erfc((extreme - 0.5 - n / 2) / math.sqrt(n / 2))
    tail = sum(math.comb(n, k) for k in range(extreme, n + 1))
    return min(1.0, float(2 * tail / 2**n))


def low_chance(count: int, n: int, share: float) -> float:
    """The chance of at most `count` of `n` when each comes with chance `share` (0 < share < 1)."""
    if n > MOST_EXACT:
        return 0.5 * math.erfc((n * share - count - 0.5) / math.sqrt(2 * n * share * (1 - share)))
    log_n = math.lgamma(n + 1)
    return sum(
        math.exp(
            log_n
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(share)
            + (n - k) * math.log1p(-share)
        )
        for k in range(count + 1)
    )


@dataclass(frozen=True, slots=True)
class Crowd:
    """What Dawid-Skene found. `errors[p, k, l]`: the chance that person p says l where k is true.

    `posteriors` is (tasks, classes), `counts[p, k, l]` how often p is believed to have said l where k was
    true, without pseudo-counts; `num_steps` how many EM steps were taken.
    """

    posteriors: Floats
    priors: Floats
    errors: Floats
    counts: Floats
    num_steps: int


@dataclass(frozen=True, slots=True)
class EmSettings:
    """How `fit_crowd` counts. With the defaults it is the plain algorithm of Dawid and Skene (1979).

    `pseudo[p, k, l]` is added to what each person is believed to have said; `class_pseudo` to how often each
    class is believed to be true. `swap` maps each class to the one it becomes when first and second trade
    places: counts are then the same in both orientations, as if every task had been fed in both.
    """

    num_steps: int = 100
    tolerance: float = 1e-5
    pseudo: Floats | None = None
    class_pseudo: float = 0.0
    swap: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Votes:
    """Who said what of which task, as numbers from 0 on, a place a vote. `known[task]` fixes a true class."""

    task: Ints
    person: Ints
    label: Ints
    num_tasks: int
    num_people: int
    num_classes: int
    known: dict[int, int] = field(default_factory=dict)

    def count(self) -> Ints:
        """Votes by task and class: (tasks, classes)."""
        cells = np.bincount(
            self.task * self.num_classes + self.label, minlength=self.num_tasks * self.num_classes
        )
        return cells.reshape(self.num_tasks, self.num_classes)


def fit_crowd(votes: Votes, settings: EmSettings | None = None) -> Crowd:
    """Dawid-Skene by EM, from the majority vote on, until a step gains less than `tolerance` a vote.

    Every task has at least one vote or a known class.
    """
    settings = settings or EmSettings()
    posteriors = _fix_known(_start(votes), votes)
    priors, counts, errors = _maximise(votes, posteriors, settings)
    bound, num_steps = -math.inf, 0
    while num_steps < settings.num_steps:
        num_steps += 1
        posteriors = _fix_known(expect(votes, priors, errors), votes)
        priors, counts, errors = _maximise(votes, posteriors, settings)
        before, bound = bound, _lower_bound(votes, posteriors, priors, errors)
        if bound - before < settings.tolerance:
            break
    return Crowd(posteriors, priors, errors, counts, num_steps)


def expect(votes: Votes, priors: Floats, errors: Floats) -> Floats:
    """The E-step: how likely each class is for each task, given what people said and how they err."""
    logs = np.log(np.maximum(errors, EPS)).transpose(0, 2, 1).reshape(-1, votes.num_classes)
    per_vote = logs[votes.person * votes.num_classes + votes.label]  # (votes, classes)
    sums = np.tile(np.log(np.maximum(priors, EPS)), (votes.num_tasks, 1))
    for k in range(votes.num_classes):
        sums[:, k] += np.bincount(votes.task, weights=per_vote[:, k], minlength=votes.num_tasks)
    sums -= sums.max(axis=1, keepdims=True)
    likely = np.exp(sums)
    normalised: Floats = likely / likely.sum(axis=1, keepdims=True)
    return normalised


def _start(votes: Votes) -> Floats:
    counts = votes.count().astype(np.float64)
    counts[counts.sum(axis=1) == 0] = 1.0  # a task with a known class alone
    normalised: Floats = counts / counts.sum(axis=1, keepdims=True)
    return normalised


def _fix_known(posteriors: Floats, votes: Votes) -> Floats:
    for task, label in votes.known.items():
        posteriors[task] = 0.0
        posteriors[task, label] = 1.0
    return posteriors


def _maximise(votes: Votes, posteriors: Floats, settings: EmSettings) -> tuple[Floats, Floats, Floats]:
    """The M-step: how often each class is true and how each person errs, (people, true, said)."""
    people, classes = votes.num_people, votes.num_classes
    cells = votes.person * classes + votes.label
    per_task = posteriors[votes.task]  # (votes, classes)
    by_cell: Floats = np.empty((people * classes, classes))
    for k in range(classes):
        by_cell[:, k] = np.bincount(cells, weights=per_task[:, k], minlength=people * classes)
    counts = by_cell.reshape(people, classes, classes).transpose(0, 2, 1)  # (people, true, said)
    class_counts = posteriors.sum(axis=0) + settings.class_pseudo
    if settings.swap is not None:
        swap = list(settings.swap)
        counts = (counts + counts[:, swap][:, :, swap]) / 2
        class_counts = (class_counts + class_counts[swap]) / 2
    if settings.pseudo is not None:
        errors = np.maximum(counts + settings.pseudo, EPS)
    else:
        # What a person never said has no row in the reference implementation; so it gets no mass here.
        said = np.bincount(cells, minlength=people * classes).reshape(people, 1, classes) > 0
        errors = np.where(said, np.maximum(counts, EPS), 0.0)
    sums = errors.sum(axis=2, keepdims=True)
    errors = np.divide(errors, sums, out=np.zeros_like(errors), where=sums > 0)
    return class_counts / class_counts.sum(), counts, errors


def _lower_bound(votes: Votes, posteriors: Floats, priors: Floats, errors: Floats) -> float:
    """The evidence lower bound a vote, as crowd-kit counts it (the prior once a vote): only for stopping."""
    logs = np.log(np.maximum(errors, EPS)).transpose(0, 2, 1).reshape(-1, votes.num_classes)
    per_vote = logs[votes.person * votes.num_classes + votes.label] + np.log(np.maximum(priors, EPS))
    joint = float((posteriors[votes.task] * per_vote).sum())
    clipped = np.maximum(posteriors, EPS)
    return (joint - float((clipped * np.log(clipped)).sum())) / max(len(votes.task), 1)


def encode(values: Sequence[Any]) -> tuple[Ints, list[Any]]:
    """Each value as a number, and the values by number, in the order they first appear."""
    known: dict[Any, int] = {}
    codes = [known.setdefault(value, len(known)) for value in values]
    return np.asarray(codes, dtype=np.int64), list(known)
