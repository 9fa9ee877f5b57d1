"""Who may call what: every route, as nobody, as each role, and as an admin."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from annotate.services import Services
from store.people import Credentials
from tests.annotate.conftest import ROLES, bearer, open_client

OPEN = "open"
ANYONE = "anyone"

# (method, path): who may call it besides an admin
ALLOWED: dict[tuple[str, str], str] = {
    ("GET", "/"): OPEN,
    ("GET", "/favicon.ico"): OPEN,
    ("GET", "/login"): OPEN,
    ("POST", "/login"): OPEN,
    ("POST", "/logout"): OPEN,
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/metrics"): "admin",
    ("GET", "/openapi.json"): ANYONE,
    ("GET", "/docs"): ANYONE,
    ("GET", "/v1/models"): "tester",
    ("GET", "/v1/models/{model}"): "tester",
    ("POST", "/v1/chat/completions"): "tester",
    ("POST", "/v1/feedback"): "tester",
    ("POST", "/v1/comparisons"): "tester",
    ("GET", "/v1/conversations"): "tester",
    ("GET", "/v1/conversations/{conversation_id}"): "tester",
    ("POST", "/v1/tasks/next"): "annotator",
    ("POST", "/v1/tasks/{task_id}/heartbeat"): "annotator",
    ("POST", "/v1/tasks/{task_id}/judgement"): "annotator",
    ("POST", "/v1/judgements/undo"): "annotator",
    ("GET", "/v1/guidelines"): "annotator",
    ("POST", "/v1/guidelines"): "admin",
    ("POST", "/v1/guidelines/accept"): "annotator",
    ("POST", "/v1/prompts"): "admin",
    ("POST", "/v1/import"): "admin",
    ("GET", "/v1/export"): "admin",
    ("GET", "/v1/rounds"): "admin",
    ("GET", "/v1/rounds/why"): "admin",
    ("POST", "/v1/rounds"): "admin",
    ("GET", "/v1/rounds/{round_id}"): "admin",
    ("GET", "/v1/rounds/{round_id}/report"): "admin",
    ("POST", "/v1/rounds/{round_id}/cancel"): "admin",
    ("GET", "/v1/policies"): "admin",
    ("POST", "/v1/policies/{version}/promote"): "admin",
    ("POST", "/v1/rollback"): "admin",
    ("GET", "/v1/canary"): "admin",
    ("POST", "/v1/canary"): "admin",
    ("POST", "/v1/canary/stop"): "admin",
    ("POST", "/v1/canary/promote"): "admin",
    ("GET", "/v1/people"): "admin",
    ("POST", "/v1/people"): "admin",
    ("POST", "/v1/people/{person_id}/deactivate"): "admin",
    ("POST", "/v1/people/{person_id}/activate"): "admin",
    ("POST", "/v1/people/{person_id}/sign-in-link"): "admin",
    ("GET", "/v1/sources"): "admin",
    ("DELETE", "/v1/sources/{source:path}"): "admin",
    ("GET", "/v1/judge"): "admin",
    ("POST", "/v1/judge/run"): "admin",
    ("POST", "/v1/judge/cancel"): "admin",
    ("GET", "/v1/synthetic"): "admin",
    ("POST", "/v1/synthetic"): "admin",
    ("POST", "/v1/synthetic/cancel"): "admin",
    ("POST", "/v1/people/{person_id}/erase"): "admin",
    ("GET", "/v1/people/{person_id}/versions"): "admin",
    ("GET", "/v1/adjudication"): "admin",
    ("POST", "/v1/adjudication/{task_id}"): "admin",
    ("GET", "/v1/quality"): "admin",
    ("GET", "/v1/data-report"): "admin",
}
PAGES = {"/annotate": "annotator", "/chat": "tester", "/admin": "admin"}


def routes(services: Services) -> set[tuple[str, str]]:
    app: Any = open_client(services).app
    return {(method, path) for path, methods in _walk(app.routes) for method in methods}


def _walk(found: Any) -> Any:
    for route in found:
        if isinstance(route, APIRoute):
            yield route.path, route.methods
        else:
            yield from _walk(route.original_router.routes)


def may(role: str, allowed: str) -> bool:
    return role == "admin" or allowed in (OPEN, ANYONE, role)


def test_every_route_is_in_the_table(services: Services) -> None:
    assert routes(services) == set(ALLOWED)


def test_without_signing_in_a_route_answers_401(client: TestClient) -> None:
    for (method, path), who in ALLOWED.items():
        if who == OPEN:
            continue
        reply = client.request(method, path.replace("{version}", "v1"))
        assert reply.status_code == 401, (method, path)
        assert reply.json()["error"]["type"] == "not_signed_in"
        assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reaches_its_own_routes_and_no_other(
    services: Services, people: dict[str, Credentials], role: str
) -> None:
    # Whatever a permitted call answers (a body is missing here), it is neither 401 nor 403.
    wrong = []
    with open_client(services, raise_server_exceptions=False) as client:
        for (method, path), allowed in ALLOWED.items():
            if path == "/login":  # a missing password is 401, whoever asks
                continue
            reply = client.request(method, path.replace("{version}", "v1"), headers=bearer(people[role]))
            refused = reply.status_code in (401, 403)
            if refused == may(role, allowed):
                wrong.append((method, path, reply.status_code))
    assert not wrong


@pytest.mark.parametrize("page", PAGES)
def test_a_stranger_is_sent_from_a_page_to_sign_in(client: TestClient, page: str) -> None:
    for path in (page, f"{page}/"):
        reply = client.get(path)
        assert (reply.status_code, reply.headers["location"]) == (303, f"/login?next={page}")
    for path in ("/config", "/gradio_api/info", "/gradio_api/startup-events", "/theme.css", "/assets/a.js"):
        assert client.get(page + path).status_code == 401
    assert client.post(f"{page}/gradio_api/queue/join", json={}).status_code == 401


@pytest.mark.parametrize("page", PAGES)
def test_a_page_and_all_below_it_belong_to_its_role(
    client: TestClient, people: dict[str, Credentials], page: str
) -> None:
    for role in ROLES:
        # The pages are not mounted here, so what passes the guard is not found.
        expected = 404 if may(role, PAGES[page]) else 403
        headers = bearer(people[role])
        assert client.get(page, headers=headers).status_code == expected
        assert client.get(f"{page}/config", headers=headers).status_code == expected
        join = client.post(f"{page}/gradio_api/queue/join", json={"fn_index": 1}, headers=headers)
        assert join.status_code == expected


def test_the_wrong_role_reads_a_sentence_and_a_way_out(
    client: TestClient, people: dict[str, Credentials]
) -> None:
    reply = client.get("/admin", headers=bearer(people["tester"]))
    assert reply.headers["content-type"].startswith("text/html")
    assert "needs the role admin; yours is tester" in reply.text
    assert 'href="/chat"' in reply.text


def test_the_front_door_leads_to_the_first_page_of_a_role(
    client: TestClient, people: dict[str, Credentials]
) -> None:
    assert client.get("/").headers["location"] == "/login"
    for page, role in PAGES.items():
        assert client.get("/", headers=bearer(people[role])).headers["location"] == page


def test_unknown_paths_and_methods_have_the_same_error_body(
    client: TestClient, people: dict[str, Credentials]
) -> None:
    headers = bearer(people["admin"])
    missing = client.get("/v1/nothing", headers=headers)
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found")
    wrong = client.delete("/v1/people", headers=headers)
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (405, "method_not_allowed")


def test_web_sockets_are_closed_at_the_door(client: TestClient) -> None:
    with pytest.raises(Exception) as closed, client.websocket_connect("/annotate/ws"):  # noqa: PT011
        pass
    assert getattr(closed.value, "code", None) == 1008
