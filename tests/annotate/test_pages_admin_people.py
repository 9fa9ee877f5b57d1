"""The People, Guidelines and Settings tabs without a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from annotate.pages.admin.erasing import ErasingSection
from annotate.pages.admin.guidelines import GuidelineSection
from annotate.pages.admin.people import PeopleSection
from annotate.pages.admin.settings import SettingsSection
from store.database import Store
from store.guidelines import newest_guidelines, set_guidelines
from store.people import Credentials, add_person, read_people
from store.sessions import redeem_sign_in_link
from tests.annotate.pages import as_person, lay_out
from tests.fakes import make_services


@pytest.fixture
def root(people: dict[str, Credentials]) -> Any:
    return as_person(people["admin"].person)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Store]:
    """A store in a folder: only there can somebody be erased."""
    opened = Store.open(tmp_path / "data")
    yield opened
    opened.close()


def names(store: Store) -> list[str]:
    return [person.name for person in read_people(store)]


def test_a_sign_in_link_works_once(store: Store, root: Any, people: dict[str, Credentials]) -> None:
    section = lay_out(PeopleSection, make_services(store))
    shown = str(section.make_link(people["tester"].person.person_id, root))
    token = shown.partition("/login?token=")[2].partition("<")[0]
    assert redeem_sign_in_link(store, token) == people["tester"].person
    assert redeem_sign_in_link(store, token) is None


def test_a_role_is_changed_but_never_ones_own(
    store: Store, root: Any, people: dict[str, Credentials]
) -> None:
    section = lay_out(PeopleSection, make_services(store))
    tester, admin = people["tester"].person.person_id, people["admin"].person.person_id
    assert "tester is now annotator." in str(section.change_role(tester, "annotator", root))
    assert "is unknown; choose one of" in str(section.change_role(tester, "king", root))
    assert "your own account" in str(section.change_role(admin, "tester", root))


def test_a_deactivation_asks_first(store: Store, root: Any, people: dict[str, Credentials]) -> None:
    section = lay_out(PeopleSection, make_services(store))
    tester = people["tester"].person.person_id
    assert "Deactivate tester?" in str(section.ask_deactivate(tester, root))
    assert all(person.active for person in read_people(store))
    assert "tester is deactivated." in str(section.deactivate(tester, root))


def test_somebody_is_erased_only_with_the_name_typed_exactly(kept: Store) -> None:
    root = as_person(add_person(kept, "root", "admin", "long enough").person)
    ann = add_person(kept, "Ann", "annotator", "long enough").person
    section = lay_out(ErasingSection, make_services(kept))
    assert "Erase Ann for good" in str(section.ask(ann.person_id, "delete", root))
    assert "type the name exactly" in str(section.erase(ann.person_id, "ann", False, "delete", root))
    assert names(kept) == ["root", "Ann"]
    shown = str(section.erase(ann.person_id, " Ann ", False, "delete", root))
    assert "Erased." in shown
    assert "What to do now" in shown
    assert names(kept) == ["root"]


def test_nobody_erases_themselves_or_in_an_unknown_way(kept: Store) -> None:
    made = add_person(kept, "root", "admin", "long enough").person
    ann = add_person(kept, "Ann", "annotator", "long enough").person
    section, root = lay_out(ErasingSection, make_services(kept)), as_person(made)
    assert "your own account" in str(section.ask(made.person_id, "delete", root))
    assert "is no way to erase" in str(section.ask(ann.person_id, "shred", root))
    assert "Pick a person first." in str(section.ask(None, "delete", root))


def test_guidelines_are_saved_after_a_question_and_not_over_a_newer_version(store: Store, root: Any) -> None:
    section = lay_out(GuidelineSection, make_services(store))
    assert "Nobody has set any yet" in str(section.read())
    assert "Save as version 1?" in str(section.ask("Be exact.", root))
    assert newest_guidelines(store) is None
    assert "Version 1 holds from now on." in str(section.save("0", "Be exact.", root))
    assert "holds already" in str(section.ask("Be exact.", root))
    set_guidelines(store, "Be brief.", "another admin")
    assert "version 2 was saved meanwhile" in str(section.save("1", "Be kind.", root)).lower()


def test_the_editor_is_not_written_over_while_the_same_version_holds(store: Store) -> None:
    section = lay_out(GuidelineSection, make_services(store))
    boxes = len(section.read("0"))
    assert len(section.read("")) == boxes + 3


def test_a_preview_shows_html_as_text(store: Store, root: Any) -> None:
    section = lay_out(GuidelineSection, make_services(store))
    (shown, _) = section.preview("<img src=x onerror=alert(1)>", root).values()
    assert "<img" not in shown


def test_settings_are_shown_as_json_and_sections_folded(store: Store) -> None:
    services = make_services(store, show_settings=lambda: {"port": 1, "trainer": {"beta": 0.1, "x": "<b>"}})
    shown = str(lay_out(SettingsSection, services).read())
    assert "<summary>trainer</summary>" in shown
    assert "&lt;b&gt;" in shown
    assert "No backups are made by themselves here" in shown


def test_acts_are_listed_with_who_did_them(store: Store, root: Any, people: dict[str, Credentials]) -> None:
    services = make_services(store)
    tester = people["tester"].person.person_id
    lay_out(PeopleSection, services).deactivate(tester, root)
    lay_out(PeopleSection, services).change_role(tester, "annotator", root)
    shown = str(lay_out(SettingsSection, services).read())
    assert "<td>admin</td><td>person deactivated</td><td>tester</td>" in shown
    assert "<td>admin</td><td>person made annotator</td><td>tester</td>" in shown
