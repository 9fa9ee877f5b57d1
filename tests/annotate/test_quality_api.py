"""Quality, adjudication and rounds without a person over HTTP: for admins, and blind."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from fastapi.testclient import TestClient

from store.database import Store
from store.people import Credentials, add_person
from store.records import Round
from store.rounds import advance_round, create_round
from tests.annotate.conftest import TaskMaker, bearer, open_client
from tests.fakes import make_services


@pytest.fixture
def headers(people: dict[str, Credentials]) -> dict[str, str]:
    return bearer(people["admin"])


def judge(client: TestClient, credentials: Credentials, choice: str) -> str:
    """The next task judged by text: `first`, `second` or another choice; returns its id."""
    task = client.post("/v1/tasks/next", headers=bearer(credentials)).json()
    shown = "left" if task["left"].startswith(choice) else "right"
    body = {"choice": shown if choice in ("first", "second") else choice, "strength": 2}
    path = f"/v1/tasks/{task['task_id']}/judgement"
    assert client.post(path, json=body, headers=bearer(credentials)).status_code == 200
    return str(task["task_id"])


@pytest.fixture
def disputed(client: TestClient, store: Store, tasks: TaskMaker) -> str:
    tasks.add(wanted=2, version="v0")
    two = [add_person(store, name, "annotator") for name in ("ann", "bob")]
    first, second = (judge(client, who, said) for who, said in zip(two, ("first", "second"), strict=True))
    assert first == second
    return first


def test_a_disputed_task_is_shown_blind_and_decided(
    client: TestClient, headers: dict[str, str], disputed: str
) -> None:
    reply = client.get("/v1/adjudication", headers=headers)
    [shown] = reply.json()
    assert (shown["task_id"], shown["first"], shown["second"]) == (disputed, "first answer", "second answer")
    assert (shown["votes"], shown["agreement"]) == ({"first": 1, "second": 1}, 0.5)
    assert "v0" not in reply.text
    assert not {"version", "completion_ids", "person_id"} & set(shown)
    made = client.post(
        f"/v1/adjudication/{disputed}", json={"choice": "second", "strength": 3}, headers=headers
    )
    assert (made.status_code, made.json()["choice"]) == (201, "second")
    assert client.get("/v1/adjudication", headers=headers).json() == []
    [row] = [json.loads(line) for line in client.get("/v1/export", headers=headers).text.splitlines()]
    assert row["chosen"][0]["content"] == "second answer"
    back = client.post(f"/v1/adjudication/{disputed}", json={"choice": "skip"}, headers=headers)
    assert back.status_code == 201
    assert len(client.get("/v1/adjudication", headers=headers).json()) == 1


def test_a_verdict_that_does_not_fit_is_refused(
    client: TestClient, tasks: TaskMaker, headers: dict[str, str]
) -> None:
    single = tasks.add("single").task_id
    refused = client.post(f"/v1/adjudication/{single}", json={"choice": "first"}, headers=headers)
    assert refused.status_code == 400
    assert "the choice is up or down, not first" in refused.text
    unknown = client.post("/v1/adjudication/t_none", json={"choice": "tie"}, headers=headers)
    assert unknown.status_code == 404


@pytest.mark.usefixtures("disputed")
def test_quality_is_shown_to_admins_alone(
    client: TestClient, people: dict[str, Credentials], headers: dict[str, str]
) -> None:
    quality = client.get("/v1/quality", headers=headers).json()
    assert (quality["num_judged"], quality["num_shared"]) == (1, 1)
    assert {person["name"] for person in quality["people"]} == {"ann", "bob"}
    assert quality["people"][0]["gold"]["why"] == "has met no gold task yet"
    for path in ("/v1/quality", "/v1/adjudication"):
        assert client.get(path, headers=bearer(people["annotator"])).status_code == 403


def test_a_round_without_somebody_is_asked_for_by_id(store: Store, people: dict[str, Credentials]) -> None:
    asked: list[tuple[Sequence[str], bool]] = []

    def start(actor: str, without: Sequence[str] = (), fresh: bool = False) -> Round:
        asked.append((without, fresh))
        started = create_round(store, actor, "v0", without)
        return advance_round(store, started.round_id, "cancelled")

    someone = people["annotator"].person.person_id
    with open_client(make_services(store, start_round=start)) as client:
        reply = client.post("/v1/rounds", json={"without": [someone]}, headers=bearer(people["admin"]))
        assert (reply.status_code, reply.json()["without"]) == (201, [someone])
        client.post("/v1/rounds", json={"fresh": True}, headers=bearer(people["admin"]))
        wrong = client.post("/v1/rounds", json={"persons": []}, headers=bearer(people["admin"]))
        assert wrong.status_code >= 400
        versions = client.get(f"/v1/people/{someone}/versions", headers=bearer(people["admin"]))
        assert versions.json() == []
    assert asked == [([someone], False), ([], True)]
