"""The statistics against published figures and reference implementations, missing votes included."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.agreement import (
    EmSettings,
    Votes,
    encode,
    even_chance,
    fit_crowd,
    measure_alpha,
    measure_kappa,
    measure_share,
)

# Dawid and Skene (1979), table 1: 45 patients; the first anaesthetist judged three times, four others once.
PATIENTS = (
    "1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 "
    "1111111 2223212 1211111 1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 "
    "1111111 1111111 2322222 1111111 1111111 1121121 1111111 3333233 1111111 2222222 2223232 4334343 "
    "2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222 "
)
OBSERVERS = (0, 0, 0, 1, 2, 3, 4)
# Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), section C: four observers, 12 units.
UNITS = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]


def anaesthetists() -> Votes:
    cells = [
        (i, OBSERVERS[j], int(said) - 1)
        for i, row in enumerate(PATIENTS.split())
        for j, said in enumerate(row)
    ]
    return to_votes(cells, 45, 5, 4)


def to_votes(cells: list[tuple[int, int, int]], tasks: int, people: int, classes: int) -> Votes:
    task, person, label = (np.array(column, dtype=np.int64) for column in zip(*cells, strict=True))
    return Votes(task, person, label, tasks, people, classes)


def crowd_kit_posteriors(votes: Votes, num_steps: int, tolerance: float) -> np.ndarray:
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    columns = {"task": votes.task, "worker": votes.person, "label": votes.label}
    found = DawidSkene(num_steps, tol=tolerance).fit(pd.DataFrame(columns)).probas_
    wanted = found.reindex(index=range(votes.num_tasks), columns=range(votes.num_classes)).fillna(0.0)
    return np.asarray(wanted, dtype=np.float64)


crowd_kit = pytest.mark.filterwarnings("ignore::Warning:crowdkit", "ignore::pandas.errors.Pandas4Warning")


@crowd_kit
@pytest.mark.parametrize("tolerance", [-math.inf, 1e-5])
def test_dawid_skene_equals_crowd_kit_on_the_anaesthetists(tolerance: float) -> None:
    votes = anaesthetists()
    ours = fit_crowd(votes, EmSettings(num_steps=100, tolerance=tolerance))
    theirs = crowd_kit_posteriors(votes, 100, tolerance)
    assert np.abs(ours.posteriors - theirs).max() < 1e-6


def test_dawid_skene_gives_the_class_shares_of_the_paper() -> None:
    found = fit_crowd(anaesthetists(), EmSettings(num_steps=1000, tolerance=1e-9))
    assert found.priors.round(2).tolist() == [0.40, 0.42, 0.11, 0.07]


@st.composite
def scattered_votes(draw: st.DrawFn) -> Votes:
    """Random verdicts of which many are missing; every task, person and class occurs at least once."""
    people = draw(st.integers(2, 5))
    classes = draw(st.integers(2, 4))
    tasks = draw(st.integers(2, 12))
    given_cells = draw(st.sets(st.tuples(st.integers(0, tasks - 1), st.integers(0, people - 1)), min_size=2))
    cells = [(t, p, draw(st.integers(0, classes - 1))) for t, p in sorted(given_cells)]
    task, names = encode([t for t, _, _ in cells])
    person, workers = encode([p for _, p, _ in cells])
    label, labels = encode([said for _, _, said in cells])
    return Votes(task, person, label, len(names), len(workers), len(labels))


@crowd_kit
@settings(max_examples=15, deadline=None)
@given(scattered_votes(), st.integers(1, 12))
def test_dawid_skene_equals_crowd_kit_with_missing_votes(votes: Votes, num_steps: int) -> None:
    ours = fit_crowd(votes, EmSettings(num_steps=num_steps, tolerance=-math.inf))
    assert np.abs(ours.posteriors - crowd_kit_posteriors(votes, num_steps, -math.inf)).max() < 1e-6


@crowd_kit
def test_known_answers_are_taken_as_crowd_kit_takes_them() -> None:
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    votes = anaesthetists()
    known = {0: 1, 2: 0, 35: 3}
    with_known = Votes(votes.task, votes.person, votes.label, 45, 5, 4, known)
    ours = fit_crowd(with_known, EmSettings(num_steps=20, tolerance=-math.inf))
    columns = {"task": votes.task, "worker": votes.person, "label": votes.label}
    reference = DawidSkene(20, tol=-math.inf).fit(pd.DataFrame(columns), pd.Series(known))
    theirs = reference.probas_.reindex(index=range(45), columns=range(4))
    assert np.abs(ours.posteriors - np.asarray(theirs)).max() < 1e-6
    assert ours.posteriors[0].tolist() == [0.0, 1.0, 0.0, 0.0]


@given(scattered_votes())
@settings(max_examples=15, deadline=None)
def test_swapping_first_and_second_swaps_the_posterior_and_nothing_else(votes: Votes) -> None:
    votes = replace(votes, num_classes=max(2, votes.num_classes))
    swap = (1, 0, *range(2, votes.num_classes))
    prior = np.broadcast_to(
        0.5 * np.eye(votes.num_classes) + 0.1, (votes.num_people, votes.num_classes, votes.num_classes)
    )
    em = EmSettings(num_steps=8, tolerance=-math.inf, pseudo=prior, class_pseudo=1.0, swap=swap)
    turned = Votes(
        votes.task,
        votes.person,
        np.array(swap)[votes.label],
        votes.num_tasks,
        votes.num_people,
        votes.num_classes,
    )
    one, other = fit_crowd(votes, em), fit_crowd(turned, em)
    assert np.allclose(one.posteriors, other.posteriors[:, swap])
    assert np.allclose(one.errors, other.errors)


def test_a_person_with_few_votes_stays_near_the_prior() -> None:
    wrong_once = Votes(np.array([0]), np.array([0]), np.array([1]), 1, 1, 2, {0: 0})
    pseudo = np.array([[[9.0, 1.0], [1.0, 9.0]]])
    assert fit_crowd(wrong_once, EmSettings(pseudo=pseudo)).errors[0, 0, 0] == pytest.approx(9 / 11)


def test_alpha_equals_the_published_example() -> None:
    table = [[row[i] for row in UNITS if i < len(row) and row[i] != "."] for i in range(12)]
    counts = np.array([[values.count(str(v)) for v in range(1, 6)] for values in table])
    alpha = measure_alpha(counts)
    assert alpha.value == pytest.approx(0.743, abs=5e-4)
    assert alpha.n == 11, "the last unit has one value only"


def test_an_alpha_that_cannot_be_had_says_why() -> None:
    lonely = measure_alpha(np.array([[1, 0], [0, 1]]))
    assert (lonely.value, lonely.why) == (None, "undefined: no task has been judged by two people yet")
    same = measure_alpha(np.array([[2, 0], [3, 0]]))
    assert same.value is None
    assert "every shared task got the same verdict" in same.why
    assert measure_alpha(np.zeros((0, 4), dtype=np.int64)).value is None


def test_kappa_equals_the_textbook_example_with_its_interval() -> None:
    # Cohen's 2 by 2 of 50 proposals: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no.
    ours = [1] * 25 + [0] * 25
    theirs = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    kappa = measure_kappa(ours, theirs)
    assert kappa.value == pytest.approx(0.4)
    error = 1.959964 * math.sqrt(0.7 * 0.3 / 50) / 0.5
    assert (kappa.low, kappa.high) == (pytest.approx(0.4 - error), pytest.approx(0.4 + error))
    assert measure_kappa([], []).why == "undefined: there is no task both have judged"
    assert measure_kappa([1, 1], [1, 1]).value is None


def test_a_share_has_wilsons_interval() -> None:
    share = measure_share(8, 10)
    assert (share.low, share.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert measure_share(0, 0).value is None


@pytest.mark.parametrize(
    ("count", "n", "chance"), [(10, 10, 2 / 1024), (5, 10, 1.0), (0, 3, 0.25), (8, 10, 112 / 1024)]
)
def test_the_even_test_is_exact(count: int, n: int, chance: float) -> None:
    assert even_chance(count, n) == pytest.approx(chance)


def test_the_even_test_goes_over_to_the_normal_curve_without_a_jump() -> None:
    exact = 2 * sum(math.comb(1002, k) for k in range(531, 1003)) / 2**1002
    assert even_chance(531, 1002) == pytest.approx(exact, rel=0.01)
