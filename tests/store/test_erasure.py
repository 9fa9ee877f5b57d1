"""Erasing a person: nothing of theirs is left in any byte, all of others is, and no kill leaves a half."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store import people, sessions
from store.backup import back_up
from store.backup_folder import new_name
from store.clock import utc
from store.database import Store
from store.erasure import Erasure, erase_person
from store.errors import BadValue, Busy, HeedError, NotFound, StateConflict
from store.exchange import export_labels
from store.fingerprint import file_sha256
from store.judgements import read_judgements
from store.policies import read_promotions
from store.projection import Projection
from store.prompts import read_prompt
from store.redaction import Mode
from store.rounds import advance_round, create_round
from store.snapshots import write_snapshot
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
    assert {"journal", "set-aside", "rounds", "backups", "heed.duckdb", "leases.jsonl"} <= places

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


def erase(store: Store, filled: Filled, mode: Mode = "delete") -> Erasure:
    return erase_person(store, filled.theirs.person_id, mode, actor=filled.admin.name, confirm=traces.NAME)


def test_what_others_did_stays_and_a_lost_judgement_is_wanted_again(store: Store, filled: Filled) -> None:
    before = read_judgements(store, filled.other.person_id)
    token = sessions.open_session(store, filled.other.person_id)
    promotions = read_promotions(store)
    erase(store, filled)
    assert read_judgements(store, filled.other.person_id) == before
    assert sessions.find_session(store, token) is not None
    assert [p.version for p in read_promotions(store)] == [p.version for p in promotions]
    assert {p.actor for p in read_promotions(store)} == {"erased"}
    with store.read() as cursor:
        sql = "SELECT task_id, num_accepted FROM tasks WHERE num_accepted < wanted AND NOT retired"
        open_again = dict(cursor.execute(sql).fetchall())
        labels = cursor.execute("SELECT annotator FROM outside_labels").fetchall()
    assert open_again[filled.shared.task_id] == 1
    assert labels == [("w7",)]
    judged = samples.lease(store, samples.person(store).person_id).task
    assert judged.task_id in open_again


def test_their_sessions_end_at_once(store: Store, filled: Filled) -> None:
    token = sessions.open_session(store, filled.theirs.person_id)
    link = sessions.make_sign_in_link(store, filled.theirs.person_id)
    assert sessions.find_session(store, token)
    erase(store, filled, "pseudonymise")
    assert sessions.find_session(store, token) is None
    assert sessions.redeem_sign_in_link(store, link) is None
    assert people.check_password(store, traces.NAME, traces.PASSWORD) is None


def test_the_versions_trained_on_them_are_named_and_the_next_snapshot_is_without(
    tmp_path: Path, store: Store, filled: Filled
) -> None:
    traces.train(store, "v2", filled.admin)
    erased = erase(store, filled)
    assert [(v.version, v.state) for v in erased.versions] == [("v1", "retired"), ("v2", "live")]
    assert any("v2 is live and was trained on their labels" in said for said in erased.advice)
    write_snapshot(store, tmp_path / "data" / "rounds" / "next")
    assert traces.search(tmp_path / "data" / "rounds", filled.needles) == []
    samples.prefer_first(store, samples.lease(store, samples.person(store).person_id))
    traces.train(store, "v3", filled.admin)
    again = erase_person(store, filled.other.person_id, actor="x", confirm=filled.other.name)
    assert [v.version for v in again.versions] == ["v1", "v2", "v3"]


def test_a_version_that_began_from_an_affected_one_is_affected(store: Store, filled: Filled) -> None:
    without = samples.person(store)
    erase_person(store, filled.other.person_id, actor="x", confirm=filled.other.name)
    continued = traces.train(store, "v2", filled.admin)
    snapshot = store.data_dir / "rounds" / continued / "snapshot"
    shutil.rmtree(snapshot)
    snapshot.mkdir()
    plan = store.data_dir / "rounds" / continued / "round.json"
    plan.write_text('{"trainer": {"start": "previous"}}')
    assert [(v.version, v.is_certain) for v in erase(store, filled).versions] == [("v1", True), ("v2", True)]
    assert erase_person(store, without.person_id, actor="x", confirm=without.name).versions == ()
    shutil.rmtree(store.data_dir / "rounds" / filled.round_id / "snapshot")
    last = samples.person(store)
    erased = erase_person(store, last.person_id, actor="x", confirm=last.name)
    assert [(v.version, v.is_certain) for v in erased.versions] == [("v1", False), ("v2", True)]
    assert any("nobody can tell of v1" in said for said in erased.advice)


def test_a_snapshot_that_lost_rows_says_so_and_is_sealed_anew(store: Store, filled: Filled) -> None:
    folder = store.data_dir / "rounds" / filled.round_id / "snapshot"
    rows = {path.name: pq.read_table(path).num_rows for path in folder.glob("*.parquet")}
    before = file_sha256(folder / "SHA256")
    erased = erase(store, filled)
    (note,) = json.loads((folder / "ERASED.json").read_text("utf-8"))
    assert (note["mode"], note["sha256_before"]) == ("delete", before)
    left = {path.name: pq.read_table(path).num_rows for path in folder.glob("*.parquet")}
    assert {name: rows[name] - left[name] for name in rows} == note["rows"]
    assert sum(note["rows"].values()) == sum(s.num_trained + s.num_held_out for s in erased.snapshots) > 0
    assert sum(left.values()) > 0, "rows of others stay"
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256"], cwd=folder, check=True)
    erase_person(store, filled.other.person_id, actor="x", confirm=filled.other.name)
    assert len(json.loads((folder / "ERASED.json").read_text("utf-8"))) == 2


@pytest.mark.parametrize("mode", ["delete", "pseudonymise"])
def test_rows_made_from_several_people_are_found_by_any_of_them(
    store: Store, filled: Filled, mode: Mode
) -> None:
    snapshot = store.data_dir / "rounds" / filled.round_id / "snapshot"
    ids = [filled.other.person_id, filled.theirs.person_id]
    label = read_judgements(store, filled.theirs.person_id)[0].judgement_id
    rows = {
        "row_id": ["a", "b", "c"],
        "person_ids": [ids, ids[:1], []],
        "label_ids": [["j_1"], ["j_2"], [label]],
    }
    pq.write_table(pa.table(rows), snapshot / "pairs.parquet")
    erased = erase(store, filled, mode)
    left = pq.read_table(snapshot / "pairs.parquet").to_pydict()
    if mode == "delete":
        assert left["row_id"] == ["b"]
    else:
        assert left["person_ids"] == [[ids[0], erased.person_id], ids[:1], []]


def test_nothing_acknowledged_while_somebody_is_erased_is_lost(store: Store, filled: Filled) -> None:
    stop, saved = threading.Event(), list[str]()

    def keep_writing() -> None:
        while not stop.is_set():
            saved.append(samples.prompt(store))

    writers = [threading.Thread(target=keep_writing) for _ in range(4)]
    for writer in writers:
        writer.start()
    erase(store, filled)
    stop.set()
    for writer in writers:
        writer.join()
    for prompt_id in saved:
        read_prompt(store, prompt_id)
    facts = samples.facts(store)
    assert len(saved) > 4
    store.close()
    again = Store.open(store.data_dir)
    assert samples.facts(again) == facts
    again.close()


def test_who_cannot_be_erased_is_told_why_and_nothing_changes(store: Store, filled: Filled) -> None:
    before = samples.facts(store)

    def refuse(error: type[HeedError], says: str, person_id: str, **given: str) -> None:
        asked = {"actor": "x", "confirm": traces.NAME} | given
        with pytest.raises(error, match=says):
            erase_person(store, person_id, **asked)  # type: ignore[arg-type]
        assert samples.facts(store) == before
        assert not list(store.data_dir.glob("replacing*"))

    theirs = filled.theirs.person_id
    refuse(BadValue, "type the name exactly", theirs, confirm=traces.NAME.lower())
    refuse(BadValue, "mode 'half' is not one of delete, pseudonymise", theirs, mode="half")
    refuse(StateConflict, "cannot erase yourself", theirs, actor_id=theirs)
    refuse(NotFound, "no person has the id", "u_nobody")
    started = create_round(store, "by hand", "v1")
    before = samples.facts(store)
    refuse(StateConflict, f"round {started.round_id} is running", theirs)
    advance_round(store, started.round_id, "cancelled")
    people.set_active(store, filled.admin.person_id, False, "x")
    before = samples.facts(store)
    refuse(StateConflict, "is the last active admin", theirs)


def test_a_store_in_memory_cannot_be_rewritten() -> None:
    store = Store.in_memory()
    with pytest.raises(BadValue, match="in memory"):
        erase_person(store, "u_1", actor="x", confirm="y")
    store.close()


def test_a_long_read_stops_an_erasure_and_not_the_service(
    store: Store, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Projection.stop_reading, "__defaults__", (0.01,))
    before = samples.facts(store)
    with store.read(), pytest.raises(Busy, match="nothing was changed"):
        erase(store, filled)
    assert samples.facts(store) == before
    samples.prompt(store)
    erase(store, filled)


def test_a_disk_that_fails_in_the_middle_closes_the_store_and_the_next_start_finishes(
    store: Store, filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError("the disk went away")

    with monkeypatch.context() as broken:
        broken.setattr("store.replacing._delete_old", fail)
        with pytest.raises(OSError, match="the disk went away"):
            erase(store, filled)
    assert not store.health()["ok"]
    with pytest.raises(HeedError, match="restart Heed"):
        samples.prompt(store)
    store.close()
    again = Store.open(store.data_dir)
    assert traces.search(store.data_dir, filled.needles) == []
    again.close()


def test_a_name_that_others_wrote_down_is_counted_and_left(store: Store, filled: Filled) -> None:
    samples.prompt(store, f"Who is {traces.NAME}?")
    erased = erase(store, filled)
    assert erased.num_mentions == 1
    assert any("still stands in 1 events" in said for said in erased.advice)


def test_backups_made_before_are_named(store: Store, filled: Filled, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    name = new_name(utc())
    back_up(store, folder / name)
    (folder / "not ours").mkdir()
    whole = {"backup_folder": folder, "actor": "x", "confirm": traces.NAME}
    erased = erase_person(store, filled.theirs.person_id, **whole)  # type: ignore[arg-type]
    assert (erased.backups_before, erased.backups_deleted) == ((name,), ())
    assert any(name in said for said in erased.advice)
    again = {"backup_folder": folder, "actor": "x", "confirm": filled.other.name, "also_backups": True}
    erased = erase_person(store, filled.other.person_id, **again)  # type: ignore[arg-type]
    assert (erased.backups_before, erased.backups_deleted) == ((), (name,))
    assert [path.name for path in folder.iterdir()] == ["not ours"]


def check_kills(tmp_path: Path, stride: int) -> None:
    """Every child leaves the old facts or the new ones, whole, and nothing in between."""
    store = Store.open(tmp_path / "data")
    filled = traces.fill(store)
    before = samples.facts(store)
    store.close()
    leave_debris(tmp_path / "data")
    child = [sys.executable, str(Path(__file__).with_name("erasing_child.py")), str(tmp_path / "data")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    swept = subprocess.run(
        [*child, filled.theirs.person_id, traces.NAME, str(stride)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert swept.returncode == 0, swept.stderr
    outcomes = []
    for folder in map(Path, swept.stdout.split()):
        store = Store.open(folder)
        is_old = samples.facts(store) == before
        store.close()
        outcomes.append(is_old)
        assert not list(folder.glob("replacing*")), folder
        if not is_old:
            assert traces.search(folder, filled.needles) == [], folder
    assert outcomes == sorted(outcomes, reverse=True), "once it is new it stays new"
    assert True in outcomes[:-1]
    assert False in outcomes[:-1], "no child was killed after the decision"


def test_a_kill_while_erasing_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    check_kills(tmp_path, 9)


@pytest.mark.slow
def test_a_kill_at_any_step_of_erasing_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    check_kills(tmp_path, 1)
