"""The effective label: one vote of an unknown person as it stands, a posterior once people were checked."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from store.effective import (
    BOTH_BAD,
    FIRST,
    SECOND,
    TIE,
    PairVote,
    PairVotes,
    QualitySettings,
    Reliability,
    combine_pair,
    combine_thumbs,
    fit_reliability,
    posterior,
)

SETTINGS = QualitySettings()
UNKNOWN = Reliability()


def known_crowd(verdicts: dict[str, list[int]], **extra: list[tuple[int, int, int]]) -> Reliability:
    """Reliability from gold tasks that are all FIRST; the lists say what each person answered."""
    people = list(verdicts)
    cells = [(t, n, said) for n, name in enumerate(people) for t, said in enumerate(verdicts[name])]
    task, person, verdict = (np.array(column, dtype=np.int64) for column in zip(*cells, strict=True))
    known = {int(number): FIRST for number in task}
    votes = PairVotes(task, person, verdict, int(task.max()) + 1, people, known, extra.get("repeats", []))
    return fit_reliability(votes, SETTINGS)


CROWD = known_crowd(
    {
        "good": [FIRST] * 38 + [SECOND] * 2,
        "fair": [FIRST] * 32 + [SECOND] * 8,
        "random": [FIRST, SECOND] * 20,
        "adversary": [SECOND] * 38 + [FIRST] * 2,
    }
)


@pytest.mark.parametrize(("strength", "weight"), [(1, 0.5), (2, 1.0), (3, 1.5)])
@pytest.mark.parametrize("side", [FIRST, SECOND])
def test_one_vote_of_an_unknown_person_is_taken_at_its_word(side: int, strength: int, weight: float) -> None:
    label = combine_pair([PairVote("new", side, strength)], UNKNOWN, SETTINGS)
    assert (label.chosen, label.probability, label.weight, label.strength) == (side, 1.0, weight, strength)
    beside_known_people = combine_pair([PairVote("new", side, strength)], CROWD, SETTINGS)
    assert beside_known_people == label


def test_one_vote_weighs_less_the_nearer_its_giver_is_to_guessing() -> None:
    labels = {name: combine_pair([PairVote(name, FIRST, 2)], CROWD, SETTINGS) for name in ("good", "fair")}
    assert labels["good"].probability > 0.9
    assert labels["good"].weight == pytest.approx(1.0)
    assert 0.75 < labels["fair"].probability < labels["good"].probability
    assert 0.5 < labels["fair"].weight < labels["good"].weight
    guess = combine_pair([PairVote("random", FIRST, 2)], CROWD, SETTINGS)
    assert guess.weight < 0.25
    even = known_crowd({"coin": [FIRST, SECOND] * 100})
    assert combine_pair([PairVote("coin", FIRST, 2)], even, SETTINGS).why == "undecided"


def test_a_person_as_good_as_the_prior_loses_and_gains_nothing_by_being_checked() -> None:
    as_assumed = known_crowd({"usual": [FIRST] * 36 + [SECOND] * 4})
    label = combine_pair([PairVote("usual", FIRST, 2)], as_assumed, SETTINGS)
    assert label.probability == pytest.approx(0.9, abs=0.01)
    assert label.weight == pytest.approx(1.0, abs=0.02)


def test_an_adversarys_vote_counts_the_other_way() -> None:
    label = combine_pair([PairVote("adversary", FIRST, 2)], CROWD, SETTINGS)
    assert label.chosen == SECOND
    assert label.strength == 1, "nobody said how much better the second is"


def test_two_good_people_outvote_a_guesser_and_two_guessers_do_not_outvote_one_good_person() -> None:
    votes = [PairVote("good", FIRST, 2), PairVote("fair", FIRST, 2), PairVote("random", SECOND, 2)]
    assert combine_pair(votes, CROWD, SETTINGS).probability > 0.95
    one_good = [PairVote("good", FIRST, 2), PairVote("random", SECOND, 2), PairVote("random", SECOND, 2)]
    assert combine_pair(one_good, CROWD, SETTINGS).chosen == FIRST


def test_the_weight_falls_to_nothing_at_even_odds_and_never_exceeds_the_strengths() -> None:
    accuracies = np.linspace(0.56, 0.99, 20)
    weights = []
    for accuracy in accuracies:
        right = round(400 * accuracy)
        crowd = known_crowd({"someone": [FIRST] * right + [SECOND] * (400 - right)})
        weights.append(combine_pair([PairVote("someone", FIRST, 2)], crowd, SETTINGS).weight)
    assert all(a <= b + 1e-9 for a, b in itertools.pairwise(weights))
    assert weights[0] < 0.2
    assert max(weights) == 1.0


def test_swapping_first_and_second_swaps_the_label() -> None:
    other = {FIRST: SECOND, SECOND: FIRST, TIE: TIE, BOTH_BAD: BOTH_BAD}
    votes = [PairVote("good", SECOND, 1), PairVote("fair", TIE), PairVote("random", FIRST, 2)]
    turned = [PairVote(v.person_id, other[v.verdict], v.strength) for v in votes]
    one, two = posterior(votes, CROWD, SETTINGS), posterior(turned, CROWD, SETTINGS)
    assert one == pytest.approx([two[SECOND], two[FIRST], two[TIE], two[BOTH_BAD]])


@pytest.mark.parametrize(
    ("verdicts", "chosen", "why"),
    [
        ([TIE, TIE, FIRST], None, "tied"),
        ([BOTH_BAD, BOTH_BAD, FIRST], BOTH_BAD, ""),
        ([BOTH_BAD, TIE, FIRST], None, "tied"),
        ([FIRST, SECOND], None, "undecided"),
        ([FIRST, FIRST, TIE], FIRST, ""),
    ],
)
def test_ties_and_both_bad_in_majority_leave_no_pair(
    verdicts: list[int], chosen: int | None, why: str
) -> None:
    votes = [PairVote(f"p{n}", verdict, 2) for n, verdict in enumerate(verdicts)]
    label = combine_pair(votes, UNKNOWN, SETTINGS)
    assert (label.chosen, label.why) == (chosen, why)


def test_both_bad_weighs_the_trusted_share_of_votes() -> None:
    votes = [PairVote("a", BOTH_BAD), PairVote("b", BOTH_BAD), PairVote("c", FIRST, 1)]
    assert combine_pair(votes, UNKNOWN, SETTINGS).weight == pytest.approx(2 / 3)
    assert combine_pair([PairVote("random", BOTH_BAD)], CROWD, SETTINGS).weight < 0.2


def test_the_strength_is_that_of_the_winning_side() -> None:
    votes = [
        PairVote("a", FIRST, 1),
        PairVote("b", FIRST, 3),
        PairVote("c", FIRST, 3),
        PairVote("d", SECOND, 1),
    ]
    assert combine_pair(votes, UNKNOWN, SETTINGS).strength == 3


def test_inconsistency_lowers_what_is_believed_and_consistency_proves_nothing() -> None:
    def fitted(same: int, other: int) -> Reliability:
        none = np.zeros(0, dtype=np.int64)
        repeats = [(0, FIRST, FIRST)] * same + [(0, FIRST, SECOND)] * other
        return fit_reliability(PairVotes(none, none, none, 0, ["p"], {}, repeats), SETTINGS)

    assert fitted(20, 0).accuracy("p") == pytest.approx(0.9)
    wavering = fitted(12, 8).accuracy("p")
    share = (12 + 10 * 0.82) / 30
    assert wavering == pytest.approx((1 + math.sqrt(2 * share - 1)) / 2)


def test_reliability_is_found_from_shared_tasks_alone() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 300)
    accuracy = np.array([0.9, 0.9, 0.9, 0.9, 0.5])
    cells = [
        (t, p, int(truth[t] if rng.random() < accuracy[p] else 1 - truth[t]))
        for t in range(300)
        for p in rng.permutation(5)[:3]
    ]
    task, person, verdict = (np.array(column, dtype=np.int64) for column in zip(*cells, strict=True))
    votes = PairVotes(task, person, verdict, 300, list("abcde"), {}, [])
    found = fit_reliability(votes, SETTINGS)
    assert [found.accuracy(name) for name in "abcde"] == pytest.approx(accuracy.tolist(), abs=0.08)


def test_thumbs_of_several_people_are_weighed_by_who_gave_them() -> None:
    assert combine_thumbs([("new", True)], UNKNOWN, SETTINGS) == (True, 1.0)
    assert combine_thumbs([("a", True), ("b", False)], UNKNOWN, SETTINGS) is None
    both = combine_thumbs([("good", False), ("random", True)], CROWD, SETTINGS)
    assert both is not None
    assert both[0] is False


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"share_cap": 0.0}, "share_cap 0.0 is outside"),
        ({"prior_accuracy": 0.5}, "prior_accuracy 0.5 must lie between"),
        ({"min_probability": 0.4}, "min_probability 0.4 is outside 0.5..1"),
        ({"dispute_votes": 1}, "dispute_votes is at least 2"),
        ({"judge_weight": -1.0}, "judge_weight -1.0 cannot be negative"),
        ({"prior_votes": 0.0}, "prior_votes 0.0 must be above 0"),
    ],
)
def test_an_impossible_setting_is_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        QualitySettings(**setting)  # type: ignore[arg-type]
