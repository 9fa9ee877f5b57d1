"""Erasing a person over HTTP: who may, what is answered, and that token and session are dead at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from store.backup_keeper import BackupKeeper
from store.database import Store
from store.people import Credentials, read_people
from tests.annotate.conftest import bearer, open_client, sign_in
from tests.fakes import make_services
from tests.store import traces


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    with open_client(make_services(store, backup_folder=store.data_dir / "backups")) as opened:
        yield opened


def test_an_admin_erases_somebody_who_is_signed_in(
    client: TestClient, store: Store, people: dict[str, Credentials]
) -> None:
    BackupKeeper(store, store.data_dir / "backups", timedelta(hours=1)).tick()
    admin, tester = bearer(people["admin"]), people["tester"]
    sign_in(client, "tester")
    assert client.get("/v1/conversations").status_code == 200
    path = f"/v1/people/{tester.person.person_id}/erase"
    refused = client.post(path, json={"confirm": "Tester"}, headers=admin)
    assert refused.status_code == 400
    assert "type the name exactly" in refused.json()["error"]["message"]
    reply = client.post(path, json={"confirm": "tester"}, headers=admin)
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert (body["mode"], body["num_removed"], body["removed"]) == ("delete", 1, {"person_added": 1})
    assert len(body["backups_before"]) == 1
    assert "backups were made before" in body["advice"][0]
    assert client.get("/v1/conversations").status_code == 401
    assert client.get("/v1/conversations", headers=bearer(tester)).status_code == 401
    assert "tester" not in {person.name for person in read_people(store)}
    assert client.post(path, json={"confirm": "tester"}, headers=admin).status_code == 404
    other = f"/v1/people/{people['annotator'].person.person_id}/erase"
    asked = {"confirm": "annotator", "mode": "pseudonymise", "also_backups": True}
    body = client.post(other, json=asked, headers=admin).json()
    assert body["backups_before"] == []
    assert len(body["backups_deleted"]) == 1
    assert traces.search(store.data_dir, [p.person.person_id for p in (tester, people["annotator"])]) == []


def test_nobody_erases_themselves(client: TestClient, people: dict[str, Credentials]) -> None:
    path = f"/v1/people/{people['admin'].person.person_id}/erase"
    reply = client.post(path, json={"confirm": "admin"}, headers=bearer(people["admin"]))
    assert reply.status_code == 409
    assert "ask another admin" in reply.json()["error"]["message"]
