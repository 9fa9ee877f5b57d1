"""People: secrets kept as hashes, sessions that end, and what switching someone off takes away."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from store import people, sessions
from store.database import Store
from store.errors import BadValue, LeaseLost, NotAllowed, NotFound, StateConflict
from store.judgements import save_judgement
from store.ratings import save_rating
from store.tasks import count_open_tasks, lease_task
from tests.store import samples


def test_a_new_person_gets_secrets_that_work(store: Store) -> None:
    made = people.add_person(store, "Ann", "annotator")
    assert people.check_password(store, "ann ", made.password) == made.person
    assert people.find_by_token(store, made.token) == made.person
    assert people.read_person(store, made.person.person_id) == made.person
    assert people.read_people(store) == [made.person]


def test_secrets_are_nowhere_on_disk(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    made = people.add_person(store, "Ann", "annotator", "correct horse")
    session = sessions.open_session(store, made.person.person_id)
    store.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert [secret for secret in (made.password, made.token, session) if secret.encode() in stored] == []


def test_a_name_is_taken_in_any_case_and_spelling(store: Store) -> None:
    people.add_person(store, "Zoë", "tester", "long enough")
    for name in ("zoë", " ZOË", "Zoe\u0308"):
        with pytest.raises(StateConflict, match="already a person called"):
            people.add_person(store, name, "tester", "long enough")


@pytest.mark.parametrize(
    ("name", "password"),
    [("Ann", "wrong one"), ("Bob", "long enough"), ("Ann", "x" * 2000), ("\ud800", "\ud800")],
)
def test_a_wrong_name_or_password_is_nobody(store: Store, name: str, password: str) -> None:
    people.add_person(store, "Ann", "annotator", "long enough")
    assert people.check_password(store, name, password) is None


def test_an_unknown_name_costs_as_much_hashing_as_a_known_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    people.add_person(store, "Ann", "annotator", "long enough")
    costs: list[tuple[int, int, int]] = []
    real = people._scrypt

    def count(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
        costs.append((n, r, p))
        return real(password, salt, n, r, p)

    monkeypatch.setattr(people, "_scrypt", count)
    people.check_password(store, "Ann", "wrong one")
    people.check_password(store, "nobody", "wrong one")
    assert costs == [(2**14, 8, 1)] * 2


def test_a_short_password_and_an_unknown_role_are_refused(store: Store) -> None:
    with pytest.raises(BadValue, match="8 to 1024 characters, not 5"):
        people.add_person(store, "Ann", "annotator", "short")
    with pytest.raises(BadValue, match="'root' is not one of annotator, tester, admin"):
        people.add_person(store, "Ann", "root", "long enough")  # type: ignore[arg-type]


def test_a_session_ends_by_sign_out_and_by_time(store: Store) -> None:
    ann = samples.person(store)
    first = sessions.open_session(store, ann.person_id, now=samples.AT)
    second = sessions.open_session(store, ann.person_id, now=samples.AT)
    assert sessions.find_session(store, first, now=samples.AT) == ann
    sessions.end_session(store, first)
    assert sessions.find_session(store, first, now=samples.AT) is None
    assert sessions.find_session(store, second, now=samples.AT + sessions.SESSION_LIFE) is None
    assert sessions.find_session(store, "made up") is None


def test_a_sign_in_link_works_once_and_for_a_day(store: Store) -> None:
    ann = samples.person(store)
    link = sessions.make_sign_in_link(store, ann.person_id, now=samples.AT)
    late = sessions.make_sign_in_link(store, ann.person_id, now=samples.AT)
    assert sessions.redeem_sign_in_link(store, link, now=samples.AT + timedelta(hours=23)) == ann
    assert sessions.redeem_sign_in_link(store, link, now=samples.AT) is None
    assert sessions.redeem_sign_in_link(store, late, now=samples.AT + timedelta(hours=24)) is None


def test_someone_switched_off_loses_sessions_leases_and_every_act(store: Store) -> None:
    made = people.add_person(store, "Ann", "annotator", "long enough")
    ann = made.person.person_id
    session, link = sessions.open_session(store, ann), sessions.make_sign_in_link(store, ann)
    task = samples.task(store, "single")
    completion_id = task.completion_ids[0]
    samples.lease(store, ann, "single")
    assert count_open_tasks(store, "single") == 0

    assert people.set_active(store, ann, False, "admin").active is False

    assert count_open_tasks(store, "single") == 1
    assert sessions.find_session(store, session) is None
    assert sessions.redeem_sign_in_link(store, link) is None
    assert people.find_by_token(store, made.token) is None
    assert people.check_password(store, "Ann", "long enough") is None
    for act in (
        lambda: lease_task(store, ann, "single", samples.show_first),
        lambda: save_judgement(store, task.task_id, ann, choice="up"),
        lambda: save_rating(store, completion_id, ann, 1),
        lambda: sessions.open_session(store, ann),
    ):
        with pytest.raises(NotAllowed, match="Ann has been deactivated"):
            act()
    people.set_active(store, ann, True, "admin")
    assert people.check_password(store, "Ann", "long enough") is not None
    with pytest.raises(LeaseLost):
        save_judgement(store, task.task_id, ann, choice="up")


def test_an_unknown_person_is_named(store: Store) -> None:
    with pytest.raises(NotFound, match="'u_none'"):
        people.read_person(store, "u_none")


def test_another_role_counts_at_once_and_survives_a_rebuild(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    ann = people.add_person(store, "ann", "annotator", "long enough").person
    assert people.set_role(store, ann.person_id, "tester", "root").role == "tester"
    with pytest.raises(BadValue, match="role"):
        people.set_role(store, ann.person_id, "king", "root")  # type: ignore[arg-type]
    store.close()
    (tmp_path / "heed.duckdb").unlink()
    again = Store.open(tmp_path)
    assert people.read_person(again, ann.person_id).role == "tester"
    again.close()
