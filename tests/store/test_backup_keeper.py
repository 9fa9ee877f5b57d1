"""Backups without being asked: when one is made, which stay, what is told, and that one restores whole."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import backup_keeper, policies
from store.backup import Backup, back_up
from store.backup_folder import PAPER, UNFINISHED, KeptBackup, choose_old, read_backups
from store.backup_keeper import BackupKeeper
from store.database import Store
from store.errors import BadValue, HeedError
from store.exchange import export_labels
from store.journal import FileJournal
from store.rounds import advance_round, create_round
from tests.store import samples

HOUR = timedelta(hours=1)
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def keeper(store: Store, tmp_path: Path) -> BackupKeeper:
    return BackupKeeper(store, tmp_path / "backups", HOUR)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the child process that checks a copy, for tests of what is due."""

    def copy(store: Store, folder: Path, _: object) -> Backup:
        folder.mkdir()
        return Backup(str(folder), int(str(store.health()["last_seq"])), "")

    monkeypatch.setattr(backup_keeper, "back_up", copy)


def export(store: Store) -> str:
    return json.dumps(list(export_labels(store)))


def test_a_restored_backup_exports_the_same_and_goes_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    store = Store.open(data)
    samples.fill(store)
    for version in ("v1", "v2"):
        (data / "policies" / version).mkdir(parents=True)
        (data / "policies" / version / "adapter.bin").write_text(version)
    keeper = BackupKeeper(store, tmp_path / "backups", HOUR)
    made = keeper.tick()
    assert made is not None
    before, facts = export(store), samples.facts(store)
    store.close()
    shutil.rmtree(data)

    made.folder.rename(data)
    restored = Store.open(data)
    assert (export(restored), samples.facts(restored)) == (before, facts)
    samples.prompt(restored)
    restored.close()
    served = [path.name for path in (data / "policies").iterdir()]
    assert served == ["v1"], "v1 is live and v0, before it, has no adapter"


def test_files_that_never_change_again_are_linked_and_the_rest_is_copied(
    tmp_path: Path, store: Store
) -> None:
    journal = store._journal
    assert isinstance(journal, FileJournal)
    journal._rotate_bytes = 500
    for _ in range(8):
        samples.prompt(store)
    back_up(store, tmp_path / "copy")
    ours = journal.files()
    linked = [path.samefile(tmp_path / "copy" / "journal" / path.name) for path in ours]
    assert linked == [True] * (len(ours) - 1) + [False]


def test_an_adapter_that_is_missing_is_told_and_stops_no_backup(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    samples.fill(store)
    back_up(store, tmp_path / "copy")
    assert "policies/v1 is not there" in caplog.text


@pytest.mark.usefixtures("unchecked")
def test_a_backup_is_made_when_an_hour_has_passed_and_something_changed(
    store: Store, keeper: BackupKeeper
) -> None:
    assert keeper.read_status(NOW).age_s is None
    assert keeper.tick(NOW) is not None
    samples.prompt(store)
    assert keeper.tick(NOW + HOUR / 2) is None
    assert keeper.tick(NOW + HOUR) is not None
    assert keeper.tick(NOW + 3 * HOUR) is None, "nothing has changed"
    status = keeper.read_status(NOW + 3 * HOUR)
    assert (status.age_s, status.num_kept, status.newest_at) == (0, 2, NOW + HOUR)
    samples.prompt(store)
    assert keeper.tick(NOW - 5 * HOUR) is not None, "a clock that was put back silences nothing"


@pytest.mark.usefixtures("unchecked")
def test_a_round_puts_a_backup_off_but_not_for_ever(store: Store, keeper: BackupKeeper) -> None:
    keeper.tick(NOW)
    started = create_round(store, "by hand", "v0")
    assert keeper.tick(NOW + 2 * HOUR) is None
    assert keeper.tick(NOW + 4 * HOUR) is not None
    samples.prompt(store)
    assert keeper.tick(NOW + 6 * HOUR) is None
    advance_round(store, started.round_id, "failed")
    assert keeper.tick(NOW + 6 * HOUR) is not None


def test_a_failure_is_loud_is_kept_and_leaves_nothing_behind(
    store: Store, keeper: BackupKeeper, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Store, folder: Path, __: object) -> Backup:
        folder.mkdir()
        raise HeedError("the copy does not open")

    with monkeypatch.context() as broken:
        broken.setattr(backup_keeper, "back_up", fail)
        assert keeper.tick(NOW) is None
    assert "NO BACKUP could be made" in caplog.text
    assert caplog.records[-1].levelno >= logging.ERROR
    assert "the copy does not open" in keeper.read_status(NOW).last_failure
    assert list(keeper.folder.iterdir()) == []
    assert keeper.tick(NOW + timedelta(minutes=1)) is None, "it is not tried at every tick"
    assert keeper.tick(NOW + HOUR) is not None
    assert keeper.read_status(NOW + HOUR).last_failure == ""
    assert store.health()["ok"]


@pytest.mark.usefixtures("unchecked")
def test_what_a_kill_left_is_no_backup_and_goes(keeper: BackupKeeper) -> None:
    half = keeper.folder / f"20261120T110000Z{UNFINISHED}"
    half.mkdir(parents=True)
    without_paper = keeper.folder / "20261120T113000Z"
    without_paper.mkdir()
    (keeper.folder / "mine").mkdir()
    assert keeper.read_status(NOW).age_s is None
    made = keeper.tick(NOW)
    assert made is not None
    assert {path.name for path in keeper.folder.iterdir()} == {"mine", made.name}
    assert [kept.name for kept in read_backups(keeper.folder)] == [made.name]
    assert json.loads((made.folder / PAPER).read_text("utf-8"))["seq"] == made.seq


def test_a_service_that_stops_does_not_wait_for_the_check_of_a_backup(
    keeper: BackupKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A child that never answers stands for the minutes in which a large copy is opened.
    monkeypatch.setattr("store.backup.sys.executable", shutil.which("tail"))
    started = threading.Event()
    popen = subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[str]:
        child = popen([command[0], "-f", "/dev/null"], **options)  # type: ignore[call-overload]
        started.set()
        return child  # type: ignore[no-any-return]

    monkeypatch.setattr("store.backup.subprocess.Popen", start)
    made = threading.Thread(target=keeper.tick)
    made.start()
    assert started.wait(30)
    keeper.close()
    made.join()
    assert list(keeper.folder.iterdir()) == []
    assert keeper.read_status().last_failure == ""
    assert keeper.tick() is None


def test_an_interval_of_nothing_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="must be more than nothing"):
        BackupKeeper(store, tmp_path, timedelta(0))


def test_the_newest_24_and_one_of_each_of_7_days_stay() -> None:
    made = [KeptBackup(Path(f"b{hour}"), NOW - hour * HOUR, 1) for hour in range(24 * 20)]
    gone = {kept.folder.name for kept in choose_old(made)}
    stay = [int(kept.name[1:]) for kept in made if kept.name not in gone]
    # Noon: 13 backups of today and 11 of yesterday, then the last of each of the five days before.
    assert stay == [*range(24), 37, 61, 85, 109, 133]


@given(st.lists(st.integers(0, 24 * 40 * 6), unique=True), st.integers(1, 30), st.integers(0, 10))
def test_the_newest_backup_always_stays_and_no_more_than_the_limits(
    ages: list[int], hourly: int, daily: int
) -> None:
    made = [KeptBackup(Path(f"b{age}"), NOW - timedelta(minutes=10 * age), 1) for age in ages]
    stay = {kept.folder for kept in made} - {kept.folder for kept in choose_old(made, hourly, daily)}
    assert len(stay) <= hourly + daily
    assert {Path(f"b{age}") for age in sorted(ages)[:hourly]} <= stay


def test_the_live_version_and_the_one_before_it_are_in_the_backup(store: Store, tmp_path: Path) -> None:
    samples.fill(store)
    policies.add_policy(store, "v3", "v1", None, None)
    policies.promote(store, "v3", "x")
    for version in ("v1", "v2", "v3"):
        (store.data_dir / "policies" / version).mkdir(parents=True)
        (store.data_dir / "policies" / version / "adapter.bin").write_text(version)
    back_up(store, tmp_path / "copy")
    found = sorted(path.name for path in (tmp_path / "copy" / "policies").iterdir())
    assert found == ["v1", "v3"]
