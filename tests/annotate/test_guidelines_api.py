"""Guidelines over HTTP: nothing is asked while none are set; a set version blocks the next task once."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from store.people import Credentials
from tests.annotate.conftest import TaskMaker, bearer


@pytest.fixture
def ann(people: dict[str, Credentials]) -> dict[str, str]:
    return bearer(people["annotator"])


@pytest.fixture
def root(people: dict[str, Credentials]) -> dict[str, str]:
    return bearer(people["admin"])


def set_text(client: TestClient, root: dict[str, str], text: str) -> int:
    reply = client.post("/v1/guidelines", json={"text": text}, headers=root)
    assert reply.status_code == 201, reply.text
    return int(reply.json()["version"])


def accept(client: TestClient, who: dict[str, str], version: int) -> int:
    return client.post("/v1/guidelines/accept", json={"version": version}, headers=who).status_code


def test_while_none_are_set_a_program_is_asked_nothing_and_reads_the_built_in_text(
    client: TestClient, tasks: TaskMaker, ann: dict[str, str]
) -> None:
    tasks.add()
    shown = client.get("/v1/guidelines", headers=ann).json()
    assert (shown["version"], shown["accepted"]) == (0, None)
    assert "which one you would rather get" in shown["text"]
    assert client.post("/v1/tasks/next", headers=ann).status_code == 200


def test_each_version_is_accepted_once_before_the_next_task(
    client: TestClient, tasks: TaskMaker, ann: dict[str, str], root: dict[str, str]
) -> None:
    tasks.add()
    tasks.add()
    held = client.post("/v1/tasks/next", headers=ann).json()["task_id"]
    for text in ("Be kind.", "Be kind and exact."):
        version = set_text(client, root, text)
        refused = client.post("/v1/tasks/next", headers=ann)
        assert (refused.status_code, refused.json()["error"]["type"]) == (409, "guidelines_not_accepted")
        assert f'POST /v1/guidelines/accept {{"version": {version}}}' in refused.json()["error"]["message"]
        assert accept(client, ann, version - 1) == 409
        assert accept(client, ann, version) == 200
        assert client.post("/v1/tasks/next", headers=ann).json()["task_id"] == held
    assert client.get("/v1/guidelines", headers=ann).json()["accepted"] == 2


def test_a_judgement_in_hand_is_still_taken_when_a_version_is_set_meanwhile(
    client: TestClient, tasks: TaskMaker, ann: dict[str, str], root: dict[str, str]
) -> None:
    tasks.add()
    held = client.post("/v1/tasks/next", headers=ann).json()["task_id"]
    set_text(client, root, "Be kind.")
    assert client.post(f"/v1/tasks/{held}/judgement", json={"choice": "left"}, headers=ann).status_code == 200


def test_only_an_admin_sets_guidelines_and_only_whole_ones(
    client: TestClient, ann: dict[str, str], root: dict[str, str]
) -> None:
    assert client.post("/v1/guidelines", json={"text": "mine"}, headers=ann).status_code == 403
    assert client.post("/v1/guidelines", json={"text": "  "}, headers=root).status_code == 400
    assert client.post("/v1/guidelines", json={}, headers=root).status_code == 422
    assert client.get("/v1/guidelines", headers=root).json()["version"] == 0
