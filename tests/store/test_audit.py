"""The list of who did what: every kind of act is in it, newest first, and an erased name is not."""

from __future__ import annotations

from pathlib import Path

import duckdb

from store import canaries, guidelines, people, policies, rounds
from store.audit import read_audit, read_erasures
from store.database import Store
from store.erasure import erase_person
from store.migrations import STEPS
from tests.store import samples, traces


def test_every_act_is_listed_with_who_did_it(store: Store) -> None:
    person = samples.person(store)
    people.set_trained_on(store, person.person_id, False, "ann", "too fast")
    people.set_trained_on(store, person.person_id, True, "ann")
    people.set_role(store, person.person_id, "tester", "ann")
    people.set_active(store, person.person_id, False, "bob")
    people.set_active(store, person.person_id, True, "bob")
    guidelines.set_guidelines(store, "Be fair.", "ann")
    cancelled = rounds.create_round(store, "by hand: ann", "v0")
    rounds.advance_round(store, cancelled.round_id, "cancelled", "cancelled by bob")
    started = rounds.create_round(store, "enough labels", "v0")
    policies.add_policy(store, "v1", "v0", started.round_id, None)
    policies.promote(store, "v1", f"round {started.round_id}", reason="all checks passed")
    policies.promote(store, "v0", "ann", "rollback", "it swears")
    policies.add_policy(store, "v2", "v1", None, None)
    canary = canaries.start_canary(store, "v2", 0.1, "ann", "a first look")
    canaries.end_canary(store, canary.canary_id, "stopped", "bob", "seen enough")
    listed = read_audit(store)
    assert [(entry.act, entry.actor, entry.subject, entry.detail) for entry in listed] == [
        ("canary stopped", "bob", "v2", "seen enough"),
        ("canary started", "ann", "v2", "a first look"),
        ("rolled back to", "ann", "v0", "it swears"),
        ("promoted", f"round {started.round_id}", "v1", "all checks passed"),
        ("round started", "", started.round_id, "enough labels"),
        ("round cancelled", "bob", cancelled.round_id, "cancelled by bob"),
        ("round started", "ann", cancelled.round_id, "by hand: ann"),
        ("guidelines set", "ann", "version 1", ""),
        ("person activated", "bob", person.name, ""),
        ("person deactivated", "bob", person.name, ""),
        ("person made tester", "ann", person.name, ""),
        ("person taken in again", "ann", person.name, ""),
        ("person left out of rounds", "ann", person.name, "too fast"),
        ("person added", "", person.name, ""),
    ]
    assert read_audit(store, limit=2) == listed[:2]


def test_an_erasure_is_listed_without_the_name(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    filled = traces.fill(store)
    erased = erase_person(store, filled.theirs.person_id, actor="ann", confirm=traces.NAME)
    newest = read_audit(store)[0]
    assert (newest.act, newest.actor, newest.subject) == ("person erased", "ann", erased.person_id)
    assert newest.detail == f"delete, {erased.num_removed} events removed"
    (past,) = read_erasures(store)
    assert (past.mode, past.versions, past.num_events) == ("delete", ("v1",), erased.num_removed)
    assert traces.NAME not in str(read_audit(store))
    store.close()


def test_tables_from_before_the_list_are_filled_again_from_the_journal(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    samples.fill(store)
    facts, listed = samples.facts(store), read_audit(store)
    store.close()
    with duckdb.connect(str(tmp_path / "heed.duckdb")) as old:
        old.execute("DROP TABLE person_acts")
        old.execute("DELETE FROM migrations WHERE name = ?", [STEPS[-1].__name__])
    store = Store.open(tmp_path)
    assert (samples.facts(store), read_audit(store)) == (facts, listed)
    assert any(entry.act == "person deactivated" for entry in listed)
    store.close()
