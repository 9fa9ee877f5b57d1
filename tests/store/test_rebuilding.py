"""A snapshot written again from the journal alone is the same to the byte, whatever came after it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from store.database import Store
from store.errors import BadValue, NotFound
from store.judgements import undo_last
from store.people import set_trained_on
from store.policies import add_policy, promote
from store.rebuilding import read_recipe, rebuild_round, rebuild_snapshot
from store.records import Round
from store.replay import ReplaySettings
from store.rounds import advance_round, create_round
from store.snapshots import write_snapshot
from tests.store import samples


def judge_some(store: Store, num_pairs: int, version: str = "v0") -> str:
    ann = samples.person(store).person_id
    for _ in range(num_pairs):
        samples.task(store, version=version)
        samples.prefer_first(store, samples.lease(store, ann))
    return ann


def take(store: Store, replay: ReplaySettings, without: tuple[str, ...] = ()) -> Round:
    started = create_round(store, "test", "v0", without)
    folder = store.data_dir / "rounds" / started.round_id / "snapshot"
    seq = write_snapshot(store, folder, 0.2, without=without, replay=replay).seq
    return advance_round(store, started.round_id, "rejected", reason="test", snapshot_seq=seq)


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, list[str]]:
    """A data folder after two rounds, and what people did after the second: undo, leave out, label on."""
    store = Store.open(tmp_path / "data")
    ann = judge_some(store, 12)
    first = take(store, ReplaySettings())
    add_policy(store, "v1", "v0", first.round_id, None)
    promote(store, "v1", "admin")
    bob = judge_some(store, 6, "v1")
    second = take(store, ReplaySettings("equal", 0.5), without=(bob,))
    undo_last(store, ann)
    set_trained_on(store, bob, False, "admin")
    judge_some(store, 3)
    store.close()
    return tmp_path / "data", [first.round_id, second.round_id]


def test_every_rounds_snapshot_is_rebuilt_to_the_byte_from_a_copy_of_the_journal(
    data: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, rounds = data
    shutil.copytree(folder / "journal", tmp_path / "fresh" / "journal")
    for round_id in rounds:
        snapshot = folder / "rounds" / round_id / "snapshot"
        again = tmp_path / round_id
        rebuild_snapshot(tmp_path / "fresh" / "journal", read_recipe(snapshot), again)
        assert (again / "SHA256").read_bytes() == (snapshot / "SHA256").read_bytes()
        assert rebuild_round(folder, round_id, tmp_path / f"{round_id} again").differing == ()


def test_a_changed_file_is_named(data: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, (round_id, _) = data
    table = folder / "rounds" / round_id / "snapshot" / "ratings.parquet"
    table.write_bytes(table.read_bytes() + b" ")
    assert rebuild_round(folder, round_id, tmp_path / "again").differing == ("ratings.parquet",)


def test_the_report_says_how_many_old_rows_of_each_version_came_along(
    data: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, (_, second) = data
    report = json.loads((folder / "rounds" / second / "snapshot" / "report.json").read_text("utf-8"))
    assert report["recipe"]["replay"] == {"mode": "equal", "share": 0.5}
    assert report["replay"]["pairs"]["num_new"] == 0, "the new labels are those of the person left out"
    assert report["replay"]["pairs"]["old_by_version"] == {}
    assert report["labels"]["left_out"]["not_replayed"] == sum(
        report["replay"]["pairs"]["left_by_version"].values()
    )
    store = Store.open(folder)
    judge_some(store, 4, "v1")
    write_snapshot(store, tmp_path / "third", 0.0, replay=ReplaySettings("equal"))
    store.close()
    replayed = json.loads((tmp_path / "third" / "report.json").read_text("utf-8"))
    assert replayed["replay"]["pairs"]["num_new"] == 7, "three labels since the live round, and these four"
    assert replayed["replay"]["pairs"]["old_by_version"] == {"v0": 7}
    assert replayed["lag"] == {"live": "v1", "pairs": {"0": 4, "1": 10}, "ratings": {}}


def test_what_cannot_be_rebuilt_says_why(data: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, (round_id, _) = data
    with pytest.raises(NotFound, match="only a round that took a snapshot"):
        rebuild_round(folder, "rd_none", tmp_path / "again")
    recipe = read_recipe(folder / "rounds" / round_id / "snapshot")
    journal = tmp_path / "short"
    shutil.copytree(folder / "journal", journal)
    lines = (journal / "000001.jsonl").read_bytes().splitlines(keepends=True)
    (journal / "000001.jsonl").write_bytes(b"".join(lines[:9]))
    with pytest.raises(BadValue, match="holds 9 events; the snapshot covers"):
        rebuild_snapshot(journal, recipe, tmp_path / "again")
    (journal / "000001.jsonl").write_bytes(lines[0] + lines[1][:9] + b"x" + lines[1][10:])
    with pytest.raises(BadValue, match="is damaged at event 2: its checksum does not match"):
        rebuild_snapshot(journal, recipe, tmp_path / "again")
