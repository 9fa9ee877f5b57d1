"""The commands for a stopped service that ask before they do something."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import OFFLINE
from store.database import Store
from store.errors import BadValue, NotFound
from store.people import add_person, read_people
from store.snapshots import write_snapshot
from tests.trainer.labelled import judge_pairs


@pytest.fixture
def data(tmp_path: Path) -> Path:
    store = Store.open(tmp_path / "data")
    add_person(store, "Ann", "annotator", "long enough")
    store.close()
    return tmp_path / "data"


def names(data: Path) -> list[str]:
    store = Store.open(data)
    found = [person.name for person in read_people(store)]
    store.close()
    return found


def test_erasing_asks_for_the_name_and_does_nothing_without_it(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    with pytest.raises(BadValue, match="type the name exactly as it is kept, 'Ann'"):
        OFFLINE["erase-person"](["ann", "--data", str(data)])
    assert names(data) == ["Ann"]
    monkeypatch.setattr("builtins.input", lambda _: "Ann")
    OFFLINE["erase-person"](["ann", "--data", str(data)])
    assert names(data) == []
    assert "1 events removed" in capsys.readouterr().out


def test_erasing_with_yes_asks_nothing_and_an_unknown_name_is_told(data: Path) -> None:
    with pytest.raises(NotFound, match="nobody is called 'Bob'"):
        OFFLINE["erase-person"](["Bob", "--yes", "--data", str(data)])
    OFFLINE["erase-person"](["Ann", "--yes", "--mode", "pseudonymise", "--data", str(data)])
    (name,) = names(data)
    assert name.startswith("erased ")


def test_a_snapshot_is_rebuilt_and_compared_with_the_rounds_own(
    data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = Store.open(data)
    judge_pairs(store, 3, name="carl")
    snapshot = data / "rounds" / "rd_1" / "snapshot"
    sha256 = write_snapshot(store, snapshot, 0.0).sha256
    judge_pairs(store, 2, name="bob")
    store.close()
    OFFLINE["rebuild-snapshot"](["rd_1", "--data", str(data), "--out", str(tmp_path / "again")])
    said = capsys.readouterr().out
    assert "gave 3 pairs" in said
    assert f"byte for byte the round's snapshot: {sha256}" in said
    (snapshot / "pairs.parquet").write_bytes(b"")
    with pytest.raises(SystemExit):
        OFFLINE["rebuild-snapshot"](["rd_1", "--data", str(data)])
    assert "not the round's snapshot: pairs.parquet differ" in capsys.readouterr().err
