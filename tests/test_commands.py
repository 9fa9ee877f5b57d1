"""The commands for a stopped service that ask before they do something."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import OFFLINE
from store.database import Store
from store.errors import BadValue, NotFound
from store.people import add_person, read_people


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
