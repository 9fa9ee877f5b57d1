"""What an admin does over HTTP: prompts, rounds, policies, people; and the routes open to machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fastapi.testclient import TestClient

from annotate.auth import AUTOMATION
from store.clock import utc
from store.completions import read_completion
from store.database import Store
from store.errors import BadValue, StateConflict
from store.people import Credentials
from store.prompts import read_prompt
from store.records import Condition, Promotion, Round, Why
from store.rounds import create_round
from tests.annotate.conftest import bearer, open_client
from tests.fakes import make_services


@pytest.fixture
def headers(people: dict[str, Credentials]) -> dict[str, str]:
    return bearer(people["admin"])


def test_prompts_are_added_once(client: TestClient, store: Store, headers: dict[str, str]) -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    body = {"prompts": [{"messages": asked, "tags": ["a"]}], "source": "mine"}
    first = client.post("/v1/prompts", json=body, headers=headers)
    assert (first.status_code, first.json()["added"], first.json()["known"]) == (201, 1, 0)
    prompt = read_prompt(store, first.json()["prompt_ids"][0])
    assert (list(prompt.messages), prompt.source, prompt.tags) == (asked, "mine", ("a",))
    assert client.post("/v1/prompts", json=body, headers=headers).json()["known"] == 1
    ends_wrong = {"prompts": [{"messages": [{"role": "assistant", "content": "a"}]}]}
    assert client.post("/v1/prompts", json=ends_wrong, headers=headers).status_code == 400


def test_why_a_round_does_not_start_is_told_in_full(store: Store, people: dict[str, Credentials]) -> None:
    line = Condition("new labels", "trigger", 3.0, 200.0, False, "3 of 200 new labels")
    services = make_services(store, explain_round=lambda: Why(False, (line,)))
    with open_client(services) as client:
        answer = client.get("/v1/rounds/why", headers=bearer(people["admin"])).json()
    assert answer["starts"] is False
    assert answer["conditions"][0] == {
        "name": "new labels",
        "kind": "trigger",
        "value": 3.0,
        "threshold": 200.0,
        "holds": False,
        "says": "3 of 200 new labels",
    }


@pytest.fixture
def round_client(store: Store) -> Iterator[tuple[TestClient, Round]]:
    running = create_round(store, "by hand", "v0")

    def start(actor: str, without: Sequence[str] = (), fresh: bool = False) -> Round:  # noqa: ARG001
        raise StateConflict(f"round {running.round_id} is running; {actor} cannot start another")

    services = make_services(
        store,
        start_round=start,
        cancel_round=lambda _id, _actor: running,
        read_progress=lambda _id: [{"stage": "dpo", "step": 1, "loss": float("nan"), "more": [float("inf")]}],
        read_gate=lambda _id: {"decision": "reject", "checks": [{"value": float("nan")}]},
        read_log=lambda _id, count: [f"line {number}" for number in range(count)],
        read_report=lambda found: f"<h1>{found.round_id} is {found.state}</h1>",
    )
    with open_client(services) as client:
        yield client, running


def test_a_round_is_watched_with_progress_gate_and_log(
    round_client: tuple[TestClient, Round], headers: dict[str, str]
) -> None:
    client, running = round_client
    shown = client.get(f"/v1/rounds/{running.round_id}?log_lines=2", headers=headers).json()
    assert shown["round"]["state"] == "queued"
    assert shown["round"]["created_at"].endswith("Z")
    assert shown["progress"] == [{"stage": "dpo", "step": 1, "loss": None, "more": [None]}]
    assert shown["gate"] == {"decision": "reject", "checks": [{"value": None}]}
    assert shown["log"] == ["line 0", "line 1"]
    assert [one["round_id"] for one in client.get("/v1/rounds", headers=headers).json()] == [running.round_id]


def test_the_page_about_a_round_is_html_and_an_unknown_round_has_none(
    round_client: tuple[TestClient, Round], headers: dict[str, str]
) -> None:
    client, running = round_client
    page = client.get(f"/v1/rounds/{running.round_id}/report", headers=headers)
    assert page.headers["content-type"].startswith("text/html")
    assert page.text == f"<h1>{running.round_id} is queued</h1>"
    assert client.get("/v1/rounds/rd_none/report", headers=headers).status_code == 404


def test_a_second_round_is_refused_with_the_first_one_named(
    round_client: tuple[TestClient, Round], headers: dict[str, str]
) -> None:
    client, running = round_client
    reply = client.post("/v1/rounds", headers=headers)
    assert (reply.status_code, reply.json()["error"]["type"]) == (409, "state_conflict")
    assert f"round {running.round_id} is running; admin cannot" in reply.json()["error"]["message"]
    assert client.post(f"/v1/rounds/{running.round_id}/cancel", headers=headers).status_code == 200


def test_a_round_nobody_started_is_not_found(
    round_client: tuple[TestClient, Round], headers: dict[str, str]
) -> None:
    client, _ = round_client
    for round_id in ("nope", "..%2f..%2fetc", "%2e%2e", "a" * 300, "%00"):
        watched = client.get(f"/v1/rounds/{round_id}", headers=headers)
        cancelled = client.post(f"/v1/rounds/{round_id}/cancel", headers=headers)
        assert {watched.status_code, cancelled.status_code} <= {404, 405}, round_id


def test_promotion_and_rollback_carry_who_and_why(store: Store, people: dict[str, Credentials]) -> None:
    done: list[tuple[Any, ...]] = []

    def move(kind: Any) -> Any:
        def record(*given: Any) -> Promotion:
            done.append((kind, *given))
            return Promotion("v1", "v0", kind, "admin", "because", utc())

        return record

    services = make_services(store, promote=move("promote"), roll_back=move("rollback"))
    headers = bearer(people["admin"])
    with open_client(services) as client:
        listed = client.get("/v1/policies", headers=headers).json()
        assert (listed["live"], listed["loaded"], listed["policies"][0]["version"]) == ("v0", ["v0"], "v0")
        body = {"reason": "gate passed"}
        assert client.post("/v1/policies/v1/promote", json=body, headers=headers).json()["kind"] == "promote"
        assert client.post("/v1/rollback", headers=headers).status_code == 200
        assert client.post(
            "/v1/rollback", json={"version": "v0", "reason": "worse"}, headers=headers
        ).is_success
        for bad in ("../x", "v", "live", "v1;drop"):
            assert client.post("/v1/rollback", json={"version": bad}, headers=headers).status_code == 422
        assert client.post("/v1/policies/..%2fx/promote", headers=headers).status_code in (404, 422)
    assert done == [
        ("promote", "v1", "admin", "gate passed"),
        ("rollback", "admin", None, ""),
        ("rollback", "admin", "v0", "worse"),
    ]


def test_a_new_person_gets_secrets_that_work_and_are_shown_once(
    client: TestClient, headers: dict[str, str]
) -> None:
    body = {"name": "Zoë 王", "role": "annotator"}
    made = client.post("/v1/people", json=body, headers=headers)
    assert made.status_code == 201
    secrets = made.json()
    token = {"authorization": f"Bearer {secrets['token']}"}
    assert client.post("/v1/judgements/undo", headers=token).status_code == 204
    form = {"name": body["name"], "password": secrets["password"]}
    assert client.post("/login", data=form).status_code == 303
    client.cookies.clear()
    listed = client.get("/v1/people", headers=headers).text
    assert secrets["token"] not in listed
    assert secrets["password"] not in listed
    assert "password" not in listed
    assert client.post("/v1/people", json=body, headers=headers).status_code == 409


IMPOSSIBLE_PEOPLE: list[tuple[dict[str, str], int]] = [
    ({"name": "", "role": "tester"}, 400),
    ({"name": "x", "role": "king"}, 422),
    ({"name": "x\x00", "role": "tester"}, 422),
    ({"name": "x", "role": "tester", "password": "short"}, 400),
    ({"name": f" {AUTOMATION.upper()} ", "role": "tester"}, 400),
    ({"name": "x" * 200, "role": "tester"}, 400),
    ({"name": "x"}, 422),
]


def test_a_person_who_cannot_be_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    for body, status in IMPOSSIBLE_PEOPLE:
        assert client.post("/v1/people", json=body, headers=headers).status_code == status, body


def test_people_are_switched_off_and_on(
    client: TestClient, headers: dict[str, str], people: dict[str, Credentials]
) -> None:
    path = f"/v1/people/{people['tester'].person.person_id}"
    assert client.post(f"{path}/deactivate", headers=headers).json()["active"] is False
    assert client.get("/v1/models", headers=bearer(people["tester"])).status_code == 401
    assert client.post(f"{path}/activate", headers=headers).json()["active"] is True
    assert client.get("/v1/models", headers=bearer(people["tester"])).status_code == 200
    myself = f"/v1/people/{people['admin'].person.person_id}/deactivate"
    assert client.post(myself, headers=headers).status_code == 409
    assert client.post("/v1/people/u_unknown/deactivate", headers=headers).status_code == 404
    link = client.post(f"{path}/sign-in-link", headers=headers).json()["path"]
    assert client.get(link).headers["location"] == "/chat"


def test_health_is_open_and_readiness_waits_for_the_policy(store: Store) -> None:
    is_ready = False
    with open_client(make_services(store, is_ready=lambda: is_ready)) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        reply = client.get("/readyz")
        assert (reply.status_code, reply.json()["error"]["type"]) == (503, "busy")
        assert reply.headers["retry-after"]
        is_ready = True
        assert client.get("/readyz").json() == {"status": "ready"}


def test_health_is_degraded_with_the_reasons_while_something_is_not_as_promoted(store: Store) -> None:
    with open_client(
        make_services(store, read_problems=lambda: ("serving v1 instead of v2: truncated",))
    ) as client:
        reply = client.get("/healthz")
        assert reply.json() == {"status": "degraded", "reasons": ["serving v1 instead of v2: truncated"]}
        assert reply.status_code == 200  # it answers: whoever restarts on a failure must not


def test_metrics_are_for_an_admin_or_this_machine(
    client: TestClient, headers: dict[str, str], people: dict[str, Credentials]
) -> None:
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers=bearer(people["tester"])).status_code == 403
    assert "heed_up 1" in client.get("/metrics", headers=headers).text
    with TestClient(client.app, base_url="http://127.0.0.1", client=("127.0.0.1", 5)) as local:
        assert local.get("/metrics").status_code == 200
        assert local.get("/metrics", headers={"x-forwarded-for": "1.2.3.4"}).status_code == 401


def test_the_api_describes_itself_without_any_other_server(
    client: TestClient, headers: dict[str, str]
) -> None:
    described = client.get("/openapi.json", headers=headers).json()
    assert "/v1/chat/completions" in described["paths"]
    page = client.get("/docs", headers=headers).text
    assert "POST /v1/rollback" in page
    assert "http" not in page


def test_a_refusal_of_another_room_keeps_its_sentence(store: Store, people: dict[str, Credentials]) -> None:
    def refuse(_actor: str, _without: Sequence[str] = (), _fresh: bool = False) -> Round:
        raise BadValue("there are no labels to train on")

    with open_client(make_services(store, start_round=refuse)) as client:
        reply = client.post("/v1/rounds", headers=bearer(people["admin"]))
    said = {"type": "bad_value", "message": "there are no labels to train on", "param": None, "code": None}
    assert reply.json() == {"error": said}


def test_chat_answers_of_an_admin_are_kept_like_any_other(
    client: TestClient, store: Store, headers: dict[str, str], people: dict[str, Credentials]
) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    made = client.post("/v1/chat/completions", json=body, headers=headers).json()
    assert read_completion(store, made["id"]).person_id == people["admin"].person.person_id
