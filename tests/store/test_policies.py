"""Policies: v0 from the first moment, versions never used twice, and one winner of every race."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from store.database import Store
from store.errors import BadValue, NotFound, StateConflict
from store.policies import (
    add_policy,
    count_promotions,
    live_version,
    mark_policy,
    next_version,
    promote,
    read_policies,
    read_policy,
    read_promotions,
)
from store.rounds import advance_round, create_round


def add(store: Store, *versions: str) -> None:
    for version in versions:
        add_policy(store, version, "v0", None, "ab" * 32)


def test_the_base_model_is_live_in_a_new_store(store: Store) -> None:
    assert live_version(store) == "v0"
    assert [(policy.version, policy.state, policy.parent) for policy in read_policies(store)] == [
        ("v0", "live", None)
    ]
    assert read_promotions(store) == []


def test_a_promotion_retires_the_one_before_and_v0_is_a_valid_way_back(store: Store) -> None:
    add(store, "v1")
    promote(store, "v1", "admin", reason="better")
    assert [read_policy(store, version).state for version in ("v0", "v1")] == ["retired", "live"]
    promote(store, "v0", "admin", kind="rollback")
    assert [read_policy(store, version).state for version in ("v0", "v1")] == ["live", "retired"]
    history = [(row.version, row.previous, row.kind, row.reason) for row in read_promotions(store)]
    assert history == [("v0", "v1", "rollback", ""), ("v1", "v0", "promote", "better")]


def test_a_promotion_raced_by_a_rollback_has_one_winner(store: Store) -> None:
    add(store, "v1", "v2")
    promote(store, "v1", "admin")

    def attempt(version: str) -> bool:
        try:
            promote(store, version, "admin", expected_live="v1")
        except StateConflict:
            return False
        return True

    for _ in range(20):
        with ThreadPoolExecutor(2) as pool:
            won = list(pool.map(attempt, ["v2", "v0"]))
        assert sorted(won) == [False, True]
        assert live_version(store) == ("v2" if won[0] else "v0")
        promote(store, "v1", "admin")


def test_versions_are_never_used_twice(store: Store) -> None:
    assert next_version(store) == "v1"
    add(store, "v1")
    mark_policy(store, "v1", "failed", "no finite loss")
    assert next_version(store) == "v2"
    started = create_round(store, "by hand", "v0")
    advance_round(store, started.round_id, "preparing", version="v2")
    advance_round(store, started.round_id, "cancelled")
    assert next_version(store) == "v3"
    with pytest.raises(StateConflict, match="v1 is registered already"):
        add(store, "v1")
    with pytest.raises(BadValue, match=r"'\.\./v9' must be v and a number"):
        add(store, "../v9")


def test_what_cannot_be_served_cannot_be_promoted(store: Store) -> None:
    add(store, "v1")
    mark_policy(store, "v1", "rejected", "too long")
    with pytest.raises(StateConflict, match=r"v1 is rejected \(too long\)"):
        promote(store, "v1", "admin")
    with pytest.raises(StateConflict, match="v0 is live already"):
        promote(store, "v0", "admin")
    with pytest.raises(NotFound, match="no policy is called 'v9'; the newest are v1, v0"):
        promote(store, "v9", "admin")
    with pytest.raises(StateConflict, match="promote another one"):
        mark_policy(store, "v0", "retired")
    with pytest.raises(BadValue, match="'live' is not one of"):
        mark_policy(store, "v1", "live")


def test_a_mark_keeps_where_the_version_came_from(store: Store) -> None:
    made = add_policy(store, "v1", "v0", "rd_1", "cd" * 32)
    assert read_policy(store, "v1") == made
    marked = mark_policy(store, "v1", "rejected", "too long")
    assert read_policy(store, "v1") == marked
    assert (marked.parent, marked.round_id, marked.weights_sha256) == ("v0", "rd_1", "cd" * 32)


def test_changes_of_live_are_counted_by_kind_and_from_a_moment_on(store: Store) -> None:
    assert count_promotions(store) == {"promote": 0, "rollback": 0}
    add(store, "v1", "v2")
    promote(store, "v1", "root")
    promote(store, "v2", "root")
    last = promote(store, "v1", "root", kind="rollback")
    assert count_promotions(store) == {"promote": 2, "rollback": 1}
    assert count_promotions(store, last.created_at) == {"promote": 0, "rollback": 1}
