"""Canaries: one at a time, who wins a race, what a flip does to one, and whose thumbs count."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from store.canaries import end_canary, read_canaries, read_canary, read_sides, start_canary
from store.canary_rows import Canary, Side
from store.completions import completion_events, save_completion
from store.database import Store
from store.erasure import erase_person
from store.errors import BadValue, HeedError, NotFound, StateConflict
from store.people import set_active, set_trained_on
from store.policies import add_policy, live_version, mark_policy, promote, read_policy
from store.ratings import save_rating
from store.writer import Decision
from tests.store import samples

IDS = [f"cv_{number:05}" for number in range(10_000)]


@pytest.fixture(autouse=True)
def candidates(store: Store) -> None:
    for version in ("v1", "v2", "v3"):
        add_policy(store, version, "v0", None, "ab" * 32)


def place(canary: Canary, is_candidates: bool) -> str:
    """A conversation of that side."""
    return next(name for name in IDS if canary.takes(name) == is_candidates)


def rate(store: Store, version: str, conversation_id: str | None, person_id: str, *values: int) -> str:
    """An answer of that version, and this person's thumbs on it, one after the other."""
    said = samples.answer(version=version, conversation_id=conversation_id, person_id=person_id)
    saved = save_completion(store, said)
    for value in values:
        save_rating(store, saved.completion_id, person_id, value)  # type: ignore[arg-type]
    return saved.completion_id


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_ten_thousand_conversations_are_shared_out_within_one_per_cent(share: float) -> None:
    canary = Canary("ca_1", "v1", "v0", share, "ann", "", samples.AT)
    taken = [name for name in IDS if canary.takes(name)]
    assert abs(len(taken) / len(IDS) - share) < 0.01
    assert taken == [name for name in IDS if canary.takes(name)]
    other = dataclasses.replace(canary, canary_id="ca_2")
    assert taken != [name for name in IDS if other.takes(name)], "the next canary asks other conversations"


def test_the_measured_share_of_ten_thousand_conversations_is_the_one_that_was_set(store: Store) -> None:
    canary = start_canary(store, "v1", 0.1, "ann")

    def save(cursor: duckdb.DuckDBPyConnection) -> Decision[None]:
        (one,) = completion_events(cursor, [samples.answer(completion_id="c", person_id="u_1")])
        versions = {True: "v1", False: "v0"}
        saved = [
            {"completion_id": f"c_{name}", "conversation_id": name, "version": versions[canary.takes(name)]}
            for name in IDS
        ]
        return Decision(None, [one | fields for fields in saved])

    store.write(save)
    sides = read_sides(store, canary)
    assert sides.candidate.conversations + sides.live.conversations == len(IDS)
    assert sides.share == pytest.approx(0.1, abs=0.01)


def test_one_canary_runs_at_a_time_and_of_a_race_one_wins(store: Store) -> None:
    def start(version: str) -> Canary | HeedError:
        try:
            return start_canary(store, version, 0.1, "ann", expected_live="v0")
        except HeedError as error:
            return error

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(start, ("v1", "v2", "v3")))
    (won,) = [result for result in results if isinstance(result, Canary)]
    assert read_canary(store) == won
    assert all("one runs at a time" in str(result) for result in results if result is not won)
    newer = next(version for version in ("v1", "v2", "v3") if version != won.version)
    start_canary(store, newer, 0.2, "round 1", supersede=True)
    assert [(c.version, c.outcome) for c in read_canaries(store)] == [
        (newer, None),
        (won.version, "superseded"),
    ]


def test_what_cannot_be_served_or_is_live_is_no_canary(store: Store) -> None:
    mark_policy(store, "v1", "rejected", "too long")
    with pytest.raises(StateConflict, match=r"v1 is rejected \(too long\)"):
        start_canary(store, "v1", 0.1, "ann")
    with pytest.raises(StateConflict, match="v0 is live already"):
        start_canary(store, "v0", 0.1, "ann")
    with pytest.raises(NotFound, match="v9"):
        start_canary(store, "v9", 0.1, "ann")
    with pytest.raises(BadValue, match=r"share 1\.0 must lie between 0 and 1"):
        start_canary(store, "v2", 1.0, "ann")
    promote(store, "v2", "bob")
    with pytest.raises(StateConflict, match="v2 is live by now, not v0"):
        start_canary(store, "v3", 0.1, "ann", expected_live="v0")
    assert read_canaries(store) == []


def test_a_flip_ends_the_canary_in_its_own_write(store: Store) -> None:
    first = start_canary(store, "v1", 0.1, "ann")
    promote(store, "v1", "bob")
    (ended,) = read_canaries(store)
    assert (ended.outcome, ended.ended_by, read_canary(store)) == ("promoted", "bob", None)
    with pytest.raises(StateConflict, match="does not run any more"):
        end_canary(store, first.canary_id, "withdrawn", "heed", "too late")
    start_canary(store, "v2", 0.1, "ann")
    promote(store, "v0", "bob", kind="rollback")
    newest = read_canaries(store)[0]
    assert (newest.outcome, newest.end_reason) == ("superseded", "v0 was made live")


def test_a_withdrawn_candidate_is_rejected_and_an_earlier_live_version_is_not(store: Store) -> None:
    started = start_canary(store, "v1", 0.1, "ann")
    end_canary(store, started.canary_id, "withdrawn", "heed", "people like it less", reject=True)
    assert (read_policy(store, "v1").state, read_policy(store, "v1").reason) == (
        "rejected",
        "people like it less",
    )
    promote(store, "v2", "bob")
    again = start_canary(store, "v0", 0.5, "ann")
    end_canary(store, again.canary_id, "withdrawn", "heed", "people like it less", reject=True)
    assert read_policy(store, "v0").state == "retired", "the base stays a target of a rollback"


def test_a_candidate_that_is_marked_failed_is_withdrawn_in_the_same_write(store: Store) -> None:
    start_canary(store, "v1", 0.1, "ann")
    mark_policy(store, "v1", "failed", "its files are gone")
    assert [(c.outcome, c.end_reason) for c in read_canaries(store)] == [
        ("withdrawn", "it was marked failed: its files are gone")
    ]


def test_the_newest_thumb_of_each_person_counts_for_the_version_that_answered(store: Store) -> None:
    ann, bob = (samples.person(store, "tester").person_id for _ in range(2))
    rate(store, "v1", "cv_before", ann, -1)
    canary = start_canary(store, "v1", 0.3, "ann")
    mine, lives = place(canary, True), place(canary, False)
    said = rate(store, "v1", mine, ann, 1, -1)
    save_rating(store, said, bob, 1)
    rate(store, "v1", mine, ann, 1, 0)  # taken back
    rate(store, "v0", lives, ann, 1)
    rate(store, "v0", lives, ann)
    sides = read_sides(store, canary)
    assert sides.candidate == Side(conversations=1, up=1, down=1)
    assert sides.live == Side(conversations=1, up=1, down=0)
    assert (sides.share, sides.candidate.up_rate) == (0.5, 0.5)


def test_who_asks_for_a_version_by_name_tells_nothing_about_the_share(store: Store) -> None:
    ann = samples.person(store, "tester").person_id
    canary = start_canary(store, "v1", 0.3, "ann")
    rate(store, "v1", place(canary, False), ann, -1)
    rate(store, "v2", place(canary, True), ann, -1)
    rate(store, "v0", place(canary, True), ann, -1)
    sides = read_sides(store, canary)
    assert (sides.candidate, sides.live, sides.share) == (Side(), Side(), None)


def test_a_request_without_a_conversation_is_one_of_its_own(store: Store) -> None:
    ann = samples.person(store, "tester").person_id
    canary = start_canary(store, "v1", 0.5, "ann")
    for _ in range(20):
        said = samples.answer(version="v0", person_id=ann)
        completion_id = save_completion(store, said).completion_id
        if canary.takes(completion_id):
            continue
        save_rating(store, completion_id, ann, 1)
    live = read_sides(store, canary).live
    assert live.up == live.conversations > 0


def test_people_who_are_left_out_or_switched_off_do_not_count(store: Store) -> None:
    ann, bob, cid = (samples.person(store, "tester").person_id for _ in range(3))
    canary = start_canary(store, "v1", 0.3, "ann")
    for person_id in (ann, bob, cid):
        rate(store, "v1", place(canary, True), person_id, -1)
    set_trained_on(store, ann, False, "root", "careless")
    set_active(store, bob, False, "root")
    assert read_sides(store, canary).candidate == Side(conversations=1, up=0, down=1)


def test_an_ended_canary_keeps_the_numbers_it_ended_with(store: Store) -> None:
    ann = samples.person(store, "tester").person_id
    canary = start_canary(store, "v1", 0.3, "ann")
    rate(store, "v1", place(canary, True), ann, -1)
    ended = end_canary(store, canary.canary_id, "stopped", "bob", "seen enough")
    rate(store, "v1", place(canary, True), ann, -1)
    assert read_sides(store, ended).candidate == Side(1, 0, 1)
    assert ended.numbers["candidate_down"] == 1


def test_erasing_a_rater_and_an_actor_leaves_a_canary_that_can_be_read(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    add_policy(store, "v1", "v0", None, "ab" * 32)
    ann, root = samples.person(store, "admin"), samples.person(store, "admin")
    canary = start_canary(store, "v1", 0.3, ann.name, "my own words")
    rate(store, "v1", place(canary, True), ann.person_id, -1)
    rate(store, "v0", place(canary, False), root.person_id, 1)
    erase_person(store, ann.person_id, actor=root.name, confirm=ann.name)
    running = read_canary(store)
    assert running is not None
    assert (running.actor, running.reason, running.canary_id) == ("erased", "", canary.canary_id)
    sides = read_sides(store, running)
    assert (sides.candidate, sides.live) == (Side(), Side(1, 1, 0))
    store.close()
    again = Store.open(tmp_path)
    assert (read_canary(again), live_version(again)) == (running, "v0")
    again.close()
