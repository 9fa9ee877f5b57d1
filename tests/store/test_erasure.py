"""Erasing a person: nothing of theirs is left in any byte, all of others is, and no kill leaves a half."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import people
from store.backup import back_up
from store.backup_folder import new_name
from store.clock import utc
from store.database import Store
from store.erasure import erase_person
from store.exchange import export_labels
from store.judgements import read_judgements
from tests.store import samples, traces
from tests.store.traces import Filled


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scrypt at its real cost would be most of the time these tests take."""
    monkeypatch.setattr(people, "_SCRYPT_N", 2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def filled(store: Store) -> Filled:
    return traces.fill(store)


def leave_debris(data: Path) -> None:
    """What accidents leave behind: tables set aside, a torn line of the journal, a half-written snapshot."""
    aside = data / "set-aside" / "20260101T000000000000"
    aside.mkdir(parents=True)
    shutil.copyfile(data / "heed.duckdb", aside / "heed.duckdb")
    torn = data / "journal" / "000001.jsonl.torn-20260101T000000000000"
    torn.write_bytes((data / "journal" / "000001.jsonl").read_bytes()[:2000])
    round_folder = next((data / "rounds").iterdir())
    shutil.copytree(round_folder / "snapshot", round_folder / "snapshot.unfinished")


def export(store: Store) -> str:
    return "\n".join(json.dumps(row) for row in export_labels(store))


def test_nothing_of_a_deleted_person_is_left_in_any_byte(tmp_path: Path) -> None:
    data = tmp_path / "data"
    store = Store.open(data)
    filled = traces.fill(store)
    store.close()  # the tables' file now holds all of it
    leave_debris(data)
    store = Store.open(data)
    back_up(store, data / "backups" / new_name(utc()))
    (tmp_path / "export.jsonl").write_text(export(store), "utf-8")
    found = {needle for needle, _ in traces.search(tmp_path, filled.needles)}
    assert found == set(filled.needles), "what is not there cannot be seen to go"
    places = {path.split("/")[1] for _, path in traces.search(tmp_path, [filled.theirs.person_id])}
    assert {"journal", "set-aside", "rounds", "backups", "heed.duckdb"} <= places

    erased = erase_person(
        store,
        filled.theirs.person_id,
        actor=filled.admin.name,
        confirm=traces.NAME,
        backup_folder=data / "backups",
        also_backups=True,
    )
    assert traces.search(data, filled.needles) == []
    (tmp_path / "export.jsonl").write_text(export(store), "utf-8")
    back_up(store, tmp_path / "fresh")
    samples.prompt(store)
    store.close()
    assert traces.search(tmp_path, filled.needles) == []
    assert len(erased.backups_deleted) == 1
    again = Store.open(data)
    assert traces.search(tmp_path, filled.needles) == []
    again.close()


def test_a_pseudonym_keeps_the_choices_and_nothing_that_names_them(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    filled = traces.fill(store)
    before = read_judgements(store, filled.theirs.person_id)
    rows = list(export_labels(store))
    store.close()
    leave_debris(tmp_path / "data")
    store = Store.open(tmp_path / "data")
    erased = erase_person(store, filled.theirs.person_id, "pseudonymise", actor="x", confirm=traces.NAME)
    store.close()
    gone = (traces.NAME, filled.theirs.person_id, *filled.secrets, traces.COMMENT, traces.REASON)
    assert traces.search(tmp_path, gone) == []
    store = Store.open(tmp_path / "data")
    after = read_judgements(store, erased.person_id)
    assert [(j.judgement_id, j.choice, j.chosen_id, j.correction, j.undone, j.comment) for j in after] == [
        (j.judgement_id, j.choice, j.chosen_id, j.correction, j.undone, "") for j in before
    ]
    assert [row["row_id"] for row in export_labels(store)] == [row["row_id"] for row in rows]
    person = people.read_person(store, erased.person_id)
    assert not person.active
    assert people.check_password(store, person.name, traces.PASSWORD) is None
    store.close()
