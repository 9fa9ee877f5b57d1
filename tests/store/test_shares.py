"""The cap on one person's share: a flood moves no more than it, and nobody is pulled down to one label."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.records import RatingRow
from store.shares import cap_shares, find_level
from tests.store import samples


def thumbs(person_id: str, count: int, source: str = "human", weight: float = 1.0) -> list[RatingRow]:
    return [
        RatingRow(
            f"{person_id}{n}", "p", samples.ask("q"), "a", (1,), "v0", True, weight, (person_id,), ("l",),
            source, samples.AT,
        )
        for n in range(count)
    ]  # fmt: skip


def weight_of(rows: list[RatingRow], person_id: str) -> float:
    return sum(row.weight for row in rows if person_id in row.person_ids)


def test_a_flood_of_a_thousand_thumbs_moves_no_more_than_the_cap() -> None:
    rows = [row for n in range(10) for row in thumbs(f"u{n}", 10)] + thumbs("flood", 1000)
    capped, report = cap_shares(rows, 0.10)
    assert weight_of(capped, "flood") / sum(row.weight for row in capped) == pytest.approx(0.10)
    assert all(weight_of(capped, f"u{n}") == 10 for n in range(10))
    assert len(report.capped) == 1
    assert "1 of 11 people" in report.says


def test_without_enough_people_there_is_no_cap_and_the_report_says_so() -> None:
    rows = thumbs("a", 100) + thumbs("b", 1)
    capped, report = cap_shares(rows, 0.10)
    assert capped == rows
    assert (report.level, report.says) == (None, "no cap: 2 people, and 10% each needs at least 10")
    assert sum(report.shares.values()) == pytest.approx(1.0)


def test_one_person_with_one_label_does_not_pull_everybody_down() -> None:
    rows = [row for n in range(9) for row in thumbs(f"u{n}", 50)] + thumbs("new", 1)
    capped, report = cap_shares(rows, 0.10)
    assert report.level == 50
    assert capped == rows


def test_an_admins_verdicts_and_outside_labels_are_not_capped() -> None:
    people = [row for n in range(10) for row in thumbs(f"u{n}", 5)]
    verdicts = thumbs("admin", 500, source="adjudicated")
    outside = thumbs("x", 500, source="import:x")
    capped, _ = cap_shares(people + verdicts + outside, 0.10)
    assert capped == people + verdicts + outside


def test_a_row_of_several_people_belongs_to_each_in_equal_parts() -> None:
    [one] = thumbs("a", 1, weight=3.0)
    _, report = cap_shares([replace(one, person_ids=("a", "b")), *thumbs("a", 1)], 0.5)
    assert sorted(report.shares.values()) == pytest.approx([1.5 / 4, 2.5 / 4])


@given(st.lists(st.floats(0.1, 1000), min_size=12, max_size=60), st.sampled_from([0.1, 0.2, 0.5]))
def test_the_level_solves_its_equation_or_is_the_median(weights: list[float], share_cap: float) -> None:
    weights.sort()
    level = find_level(weights, share_cap)
    kept = [min(weight, level) for weight in weights]
    middle = sorted(weights)[len(weights) // 2]
    assert max(kept) <= share_cap * sum(kept) * (1 + 1e-9) or level <= middle * (1 + 1e-9)
    assert level >= sorted(weights)[(len(weights) - 1) // 2] * (1 - 1e-12)
