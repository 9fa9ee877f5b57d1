"""Replay: every new row, as many old ones as asked for, none of a version crowding out another."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import BadValue
from store.records import PairRow
from store.replay import ReplaySettings, choose_replayed, version_of
from tests.store.test_splitting import QUICK, ROW

EQUAL = ReplaySettings("equal")


def row(number: int, version: str, label: str | None = None) -> PairRow:
    label_ids = (label or f"j{number}",)
    return replace(
        ROW, row_id=f"r{number:03}", chosen_version=version, rejected_version=version, label_ids=label_ids
    )


@QUICK
@given(
    versions=st.lists(st.sampled_from(["v0", "v1", "v2"]), min_size=1, max_size=40),
    num_new=st.integers(0, 12),
    share=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_each_version_has_its_share_of_the_old_rows(versions: list[str], num_new: int, share: float) -> None:
    old = [row(number, version) for number, version in enumerate(versions)]
    new = [row(500 + number, "v3") for number in range(num_new)]
    labels = {label for one in new for label in one.label_ids}
    kept, left, told = choose_replayed([*old, *new], labels, ReplaySettings("equal", share), "7")
    wanted = min(round(share * num_new), len(old))
    assert [one for one in kept if one in new] == new
    assert len(kept) == len(new) + wanted
    assert sorted([*kept, *left], key=lambda one: one.row_id) == [*old, *new]
    assert told.num_new == num_new
    assert sum(told.old_by_version.values()) == wanted
    had = Counter(versions)
    took = [told.old_by_version.get(version, 0) for version in had]
    unfinished = [n for version, n in zip(had, took, strict=True) if n < had[version]]
    assert all(most - n <= 1 for n in unfinished for most in took)


def test_the_same_rows_are_drawn_again_and_others_another_time() -> None:
    rows = [row(number, "v0") for number in range(60)] + [row(500 + n, "v1") for n in range(10)]
    labels = {f"j{500 + n}" for n in range(10)}
    one, again, other = (choose_replayed(rows, labels, EQUAL, salt)[0] for salt in ("7", "7", "8"))
    assert one == again
    assert one != other


def test_a_new_vote_on_an_old_task_makes_its_row_new() -> None:
    voted = replace(row(1, "v0"), label_ids=("old", "new"))
    assert choose_replayed([voted, row(2, "v0")], {"new"}, ReplaySettings("none"), "")[0] == [voted]


def test_all_keeps_every_row_whether_or_not_it_is_new() -> None:
    rows = [row(1, "v0"), row(2, "v1")]
    for new in (None, {"j2"}):
        assert choose_replayed(rows, new, ReplaySettings("all"), "")[0] == rows


def test_a_correction_belongs_to_the_version_that_was_corrected() -> None:
    assert version_of(replace(row(1, "v4"), chosen_version="edited")) == "v4"


def test_auto_is_all_for_a_fresh_adapter_and_equal_for_one_that_goes_on() -> None:
    assert ReplaySettings().resolve("fresh").mode == "all"
    assert ReplaySettings().resolve("previous").mode == "equal"
    assert ReplaySettings("none").resolve("fresh").mode == "none"


@pytest.mark.parametrize("bad", [{"mode": "some"}, {"share": 0.0}, {"share": 1e9}])
def test_an_impossible_replay_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(BadValue, match="replay"):
        ReplaySettings(**bad)  # type: ignore[arg-type]
