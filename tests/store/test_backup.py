"""Backups: taken while people write, checked by opening, restored by putting them in place."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from store.backup import back_up
from store.database import Store
from store.errors import BadValue, HeedError, StateConflict
from store.journal import FileJournal
from tests.store import samples


def test_a_backup_taken_under_writes_restores_to_the_same_facts(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    samples.fill(store)
    stop = threading.Event()

    def keep_writing() -> None:
        while not stop.is_set():
            samples.prompt(store)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    taken = back_up(store, tmp_path / "backup")
    stop.set()
    writer.join()
    assert int(str(store.health()["last_seq"])) > taken.seq
    store.close()

    shutil.rmtree(tmp_path / "data")
    (tmp_path / "backup").rename(tmp_path / "data")
    restored = Store.open(tmp_path / "data")
    assert samples.facts(restored) == taken.facts
    assert restored.health()["last_seq"] == taken.seq
    samples.prompt(restored)
    restored.close()


def test_a_copy_that_does_not_open_is_no_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_path / "data")
    samples.fill(store)

    def damage(source: Path, target: Path, _: int) -> None:
        shutil.copytree(source, target)
        copied = target / "000001.jsonl"
        copied.write_bytes(copied.read_bytes().replace(b"v1", b"v7", 1))

    monkeypatch.setattr("store.backup._copy_journal", damage)
    with pytest.raises(HeedError, match="is damaged at byte"):
        back_up(store, tmp_path / "backup")
    store.close()


def test_a_backup_needs_files_and_a_new_place(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="in memory"):
        back_up(store, tmp_path / "backup")
    on_disk = Store.open(tmp_path / "data")
    (tmp_path / "backup").mkdir()
    with pytest.raises(StateConflict, match="there already"):
        back_up(on_disk, tmp_path / "backup")
    on_disk.close()


def test_a_rotated_journal_is_copied_up_to_the_moment(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "data")
    journal = store._journal
    assert isinstance(journal, FileJournal)
    journal._rotate_bytes = 500
    for _ in range(8):
        samples.prompt(store)
    assert len(journal.files()) > 2
    assert back_up(store, tmp_path / "backup").facts == samples.facts(store)
    store.close()


def test_a_backup_can_be_named_relative_to_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The child that checks the copy has another working directory; it once opened a new, empty store there.
    monkeypatch.chdir(tmp_path)
    store = Store.open(tmp_path / "data")
    samples.fill(store)
    assert back_up(store, Path("copy")).folder == str(tmp_path / "copy")
    store.close()
