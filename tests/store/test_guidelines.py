"""Guidelines: versions that hold from the moment they are set, and who has accepted which."""

from __future__ import annotations

import pytest

from store.database import Store
from store.errors import BadValue, NotAllowed, StateConflict
from store.guidelines import (
    accept_guidelines,
    accepted_version,
    newest_guidelines,
    read_acceptances,
    read_versions,
    set_guidelines,
)
from store.people import set_active
from tests.store.samples import person


def test_the_newest_version_holds_and_the_same_text_makes_no_new_one(store: Store) -> None:
    assert newest_guidelines(store) is None
    first = set_guidelines(store, "Be kind.", "root")
    assert (first.version, set_guidelines(store, "Be kind.", "another").actor) == (1, "root")
    second = set_guidelines(store, "Be kind and exact.", "root")
    assert newest_guidelines(store) == second
    assert second.version == 2


@pytest.mark.parametrize(
    ("text", "says"), [(" \n", "empty"), ("x" * 50_001, "50001 characters"), ("a\0", "NUL")]
)
def test_text_that_nobody_could_follow_is_refused(store: Store, text: str, says: str) -> None:
    with pytest.raises(BadValue, match=says):
        set_guidelines(store, text, "root")


def test_only_the_version_that_holds_can_be_accepted(store: Store) -> None:
    anna = person(store).person_id
    with pytest.raises(StateConflict, match="version 1 of the guidelines does not hold; accept 0"):
        accept_guidelines(store, anna, 1)
    accept_guidelines(store, anna, 0)
    set_guidelines(store, "Be kind.", "root")
    with pytest.raises(StateConflict, match="accept 1"):
        accept_guidelines(store, anna, 0)
    accept_guidelines(store, anna, 1)
    assert accepted_version(store, anna) == 1


def test_accepting_twice_is_one_fact_and_nobody_accepts_for_another(store: Store) -> None:
    anna, ben = person(store).person_id, person(store).person_id
    assert accepted_version(store, anna) is None
    for _ in range(2):
        accept_guidelines(store, anna, 0)
    with store.read() as cursor:
        assert cursor.execute("SELECT count(*) FROM guideline_acceptances").fetchone() == (1,)
    assert (accepted_version(store, anna), accepted_version(store, ben)) == (0, None)


def test_somebody_deactivated_accepts_nothing(store: Store) -> None:
    anna = person(store).person_id
    set_active(store, anna, False, "root")
    with pytest.raises(NotAllowed):
        accept_guidelines(store, anna, 0)


def test_versions_are_listed_newest_first_with_what_each_person_accepted(store: Store) -> None:
    ann, bob = person(store).person_id, person(store).person_id
    for text in ("one", "two"):
        set_guidelines(store, text, "root")
        accept_guidelines(store, ann, len(read_versions(store)))
    assert [(each.version, each.text) for each in read_versions(store)] == [(2, "two"), (1, "one")]
    assert read_acceptances(store) == {ann: 2}
    assert bob not in read_acceptances(store)
