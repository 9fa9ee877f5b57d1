"""The effective label: what several people said of one task as a probability, a weight and a strength.

How much each person is believed comes from Dawid-Skene over the tasks where they can be checked: gold,
adjudicated and shared ones. Where nothing is known of a person, their vote counts as it stands.
`docs/labels.md` derives it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median_low

import numpy as np

from store.agreement import EmSettings, Floats, Ints, Votes, fit_crowd

FIRST, SECOND, TIE, BOTH_BAD = VERDICTS = range(4)
SWAPPED = (SECOND, FIRST, TIE, BOTH_BAD)
# One step of the scale counts half a "better"; the trainer brings the mean weight of a set to 1. A third
# grade goes on in the same steps: the logit of "how many would agree" grows about evenly along such scales.
WEIGHT_OF_STRENGTH = {1: 0.5, 2: 1.0, 3: 1.5}


@dataclass(frozen=True, slots=True)
class QualitySettings:
    """How labels are weighed, and when a page asks an admin to look. Flags suggest; nothing here deletes.

    `share_cap` is the largest share of the training weight one person keeps once there are 1 / share_cap
    people. `prior_accuracy` is what a person is taken for before they were checked, worth `prior_votes`
    judgements; it equals 1 - the trainer's label smoothing, so that being checked changes nothing for a
    person who is as good.
    """

    share_cap: float = 0.10
    prior_accuracy: float = 0.9
    prior_votes: float = 10.0
    min_probability: float = 0.55
    adjudicated_probability: float = 1.0
    dispute_agreement: float = 0.75
    dispute_votes: int = 2
    min_gold: int = 5
    too_fast_ms_per_word: float = 40.0
    min_edit_chars: int = 1
    import_weight: float = 1.0
    judge_weight: float = 0.5
    synthetic_weight: float = 0.5
    min_judge_kappa: float = 0.4
    min_judge_tasks: int = 20

    def __post_init__(self) -> None:
        if not 0.0 < self.share_cap <= 1.0:
            raise ValueError(f"share_cap {self.share_cap} is outside (0, 1]; 1 turns the cap off")
        for name in ("prior_accuracy", "min_probability", "adjudicated_probability"):
            if not 0.5 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} {getattr(self, name)} is outside 0.5..1")
        if not 0.5 < self.prior_accuracy < 1.0:
            raise ValueError(f"prior_accuracy {self.prior_accuracy} must lie between 0.5 and 1")
        if not 0.0 <= self.dispute_agreement <= 1.0 or not -1.0 <= self.min_judge_kappa <= 1.0:
            raise ValueError("dispute_agreement is a share (0..1) and min_judge_kappa a kappa (-1..1)")
        if self.dispute_votes < 2 or self.min_gold < 1:
            raise ValueError("dispute_votes is at least 2, min_gold at least 1")
        below_0 = (
            "too_fast_ms_per_word",
            "min_edit_chars",
            "import_weight",
            "judge_weight",
            "synthetic_weight",
        )
        for name in (*below_0, "min_judge_tasks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} cannot be negative")
        if self.prior_votes <= 0:
            raise ValueError(f"prior_votes {self.prior_votes} must be above 0")

    @property
    def full_trust(self) -> float:
        """P(right) - P(wrong) of a person at the prior: from here on a label has its whole weight."""
        return 2 * self.prior_accuracy - 1


@dataclass(frozen=True, slots=True)
class PairVote:
    """One person's verdict on a pair: FIRST, SECOND, TIE or BOTH_BAD; `strength` counts for the first two."""

    person_id: str
    verdict: int
    strength: int = 0


@dataclass(frozen=True, slots=True)
class Effective:
    """A task's label: `chosen` is FIRST or SECOND for a pair, BOTH_BAD for two undesirable answers, or None.

    `probability` is P(chosen beats rejected); `weight` is the row's; `why` names what became of a task
    without a label: tied or undecided.
    """

    chosen: int | None
    probability: float = 1.0
    weight: float = 0.0
    strength: int = 1
    why: str = ""


@dataclass(frozen=True, slots=True)
class Reliability:
    """How people err, as far as they could be checked. Who never was is in none of the maps.

    `errors[person][k][l]` is the chance that they say l where k is true; `num_checked` how many verdicts it
    rests on; `right` and `wrong` how many decided ones are believed to have been so.
    """

    priors: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)
    errors: dict[str, Floats] = field(default_factory=dict)
    num_checked: dict[str, int] = field(default_factory=dict)
    right: dict[str, float] = field(default_factory=dict)
    wrong: dict[str, float] = field(default_factory=dict)

    def accuracy(self, person_id: str) -> float | None:
        """P(right) of this person's verdicts that name a winner, pulled to the prior; None when unchecked."""
        errors = self.errors.get(person_id)
        if errors is None:
            return None
        right, wrong = float(errors[FIRST, FIRST]), float(errors[FIRST, SECOND])
        return right / (right + wrong)

    def trust(self, person_id: str, settings: QualitySettings) -> float:
        """0 for who guesses or does worse, 1 for who is as good as the prior, or unchecked."""
        accuracy = self.accuracy(person_id)
        if accuracy is None:
            return 1.0
        return min(1.0, max(0.0, (2 * accuracy - 1) / settings.full_trust))


@dataclass(frozen=True, slots=True)
class PairVotes:
    """Every standing verdict on a pair as arrays, one place a verdict, in the order they came.

    `task` and `person` are numbers, `people` the ids of the latter; `known` maps a task to its gold or
    adjudicated verdict; `repeats` holds (person, said before, said again) for tasks that were shown to
    someone twice.
    """

    task: Ints
    person: Ints
    verdict: Ints
    num_tasks: int
    people: list[str]
    known: dict[int, int]
    repeats: list[tuple[int, int, int]]

    def count(self) -> Ints:
        """Verdicts by task and sort: (tasks, 4)."""
        return Votes(
            self.task, self.person, self.verdict, self.num_tasks, len(self.people), len(VERDICTS)
        ).count()


def fit_reliability(votes: PairVotes, settings: QualitySettings, num_steps: int = 100) -> Reliability:
    """Dawid-Skene over the tasks with a known answer or at least two verdicts; the others check nobody.

    A single verdict only repeats what is believed already, so it would slow EM down and move nothing.
    """
    per_task = np.bincount(votes.task, minlength=votes.num_tasks)
    checks = per_task >= 2
    checks[list(votes.known)] = True
    kept = checks[votes.task] if len(votes.task) else np.zeros(0, dtype=bool)
    repeated = {person for person, _, _ in votes.repeats}
    if not kept.any() and not repeated:
        return Reliability()
    tasks, task = np.unique(votes.task[kept], return_inverse=True)
    place = {int(number): n for n, number in enumerate(tasks)} if votes.known else {}
    known = {place[number]: verdict for number, verdict in votes.known.items() if number in place}
    seen = Votes(task, votes.person[kept], votes.verdict[kept], len(tasks), len(votes.people), 4, known)
    priors = _prior_accuracies(votes, settings)
    # Half for each side: the M-step gives first and second the mean of what was counted for both.
    pseudo = np.stack([settings.prior_votes / 2 * prior_errors(prior) for prior in priors])
    em = EmSettings(num_steps, tolerance=1e-4, pseudo=pseudo, class_pseudo=1.0, swap=SWAPPED)
    crowd = fit_crowd(seen, em)
    num_checked = np.bincount(seen.person, minlength=len(votes.people))
    people = [n for n in range(len(votes.people)) if num_checked[n] or n in repeated]
    return Reliability(
        priors=tuple(float(share) for share in crowd.priors),
        errors={votes.people[n]: crowd.errors[n] for n in people},
        num_checked={votes.people[n]: int(num_checked[n]) for n in people},
        right={votes.people[n]: float(crowd.counts[n, FIRST, FIRST] * 2) for n in people},
        wrong={votes.people[n]: float(crowd.counts[n, FIRST, SECOND] * 2) for n in people},
    )


def prior_errors(accuracy: float) -> Floats:
    """What a person of that accuracy says; whether there is a winner at all is seen right 9 times in 10."""
    named, other = 0.9, 0.05
    missed = (1 - accuracy) / 3
    return np.array(
        [
            [named * accuracy, named * (1 - accuracy), other, other],
            [named * (1 - accuracy), named * accuracy, other, other],
            [missed, missed, accuracy, missed],
            [missed, missed, missed, accuracy],
        ]
    )


def _prior_accuracies(votes: PairVotes, settings: QualitySettings) -> list[float]:
    """Someone right with chance a, independently each time, repeats themselves with a² + (1 - a)².

    So inconsistency bounds accuracy from above, while consistency proves nothing: one can be wrong the same
    way twice. The prior is only ever lowered.
    """
    usual = settings.prior_accuracy
    expected = usual**2 + (1 - usual) ** 2
    asked = np.zeros(len(votes.people))
    same = np.zeros(len(votes.people))
    for person, before, again in votes.repeats:
        asked[person] += 1
        same[person] += before == again
    share = (same + settings.prior_votes * expected) / (asked + settings.prior_votes)
    bound = (1 + np.sqrt(np.maximum(0.0, 2 * share - 1))) / 2
    return [float(value) for value in np.minimum(usual, bound)]


def combine_pair(votes: Sequence[PairVote], reliability: Reliability, settings: QualitySettings) -> Effective:
    """The label of a pair from at least one vote.

    The votes' majority decides whether there is a winner at all; who it is and how sure that is, the
    posterior.
    """
    num_bad = sum(vote.verdict == BOTH_BAD for vote in votes)
    num_named = sum(vote.verdict in (FIRST, SECOND) for vote in votes)
    if 2 * num_bad > len(votes):
        trusted = sum(reliability.trust(v.person_id, settings) for v in votes if v.verdict == BOTH_BAD)
        return Effective(BOTH_BAD, weight=trusted / len(votes))
    if 2 * num_named < len(votes):
        return Effective(None, why="tied")
    likely = posterior(votes, reliability, settings)
    if likely[FIRST] + likely[SECOND] <= 0.5:
        return Effective(None, why="tied")
    chosen, rejected = (FIRST, SECOND) if likely[FIRST] >= likely[SECOND] else (SECOND, FIRST)
    probability = likely[chosen] / (likely[chosen] + likely[rejected])
    if probability < settings.min_probability:
        return Effective(None, why="undecided")
    strength = median_low([v.strength for v in votes if v.verdict == chosen] or [1])
    surplus = min(1.0, (likely[chosen] - likely[rejected]) / settings.full_trust)
    return Effective(chosen, probability, WEIGHT_OF_STRENGTH[strength] * surplus, strength)


def posterior(
    votes: Sequence[PairVote], reliability: Reliability, settings: QualitySettings
) -> tuple[float, ...]:
    """How likely each verdict is the true one. The one vote of a person never checked holds as it stands."""
    if len(votes) == 1 and votes[0].person_id not in reliability.errors:
        return tuple(float(verdict == votes[0].verdict) for verdict in VERDICTS)
    unchecked = prior_errors(settings.prior_accuracy)
    logs = [math.log(share) for share in reliability.priors]
    for vote in votes:
        errors = reliability.errors.get(vote.person_id, unchecked)
        for truth in VERDICTS:
            logs[truth] += math.log(errors[truth, vote.verdict])
    highest = max(logs)
    likely = [math.exp(log - highest) for log in logs]
    total = sum(likely)
    return tuple(share / total for share in likely)


def combine_thumbs(
    votes: Iterable[tuple[str, bool]], reliability: Reliability, settings: QualitySettings
) -> tuple[bool, float] | None:
    """Whether a single answer is desirable, and the row's weight; None when the thumbs cancel.

    People's accuracy is that of their pairs. KTO knows no flip, so doubt is in the weight alone.
    """
    odds, voters = 0.0, list(votes)
    if len(voters) == 1 and voters[0][0] not in reliability.errors:
        return voters[0][1], 1.0
    for person_id, desirable in voters:
        accuracy = reliability.accuracy(person_id) or settings.prior_accuracy
        odds += math.log(accuracy / (1 - accuracy)) * (1 if desirable else -1)
    probability = 1 / (1 + math.exp(-abs(odds)))
    if probability < settings.min_probability:
        return None
    return odds > 0, min(1.0, (2 * probability - 1) / settings.full_trust)


def believe_correction(
    person_id: str, reliability: Reliability, settings: QualitySettings
) -> tuple[float, float] | None:
    """P(the edited answer is the better one) and the weight of its pair; None for who is no better than a
    guess.

    As a vote is believed, but never the other way round: a bad editor's original need not be good.
    """
    accuracy = reliability.accuracy(person_id)
    if accuracy is None:
        return 1.0, 1.0
    if accuracy < settings.min_probability:
        return None
    return accuracy, reliability.trust(person_id, settings)
