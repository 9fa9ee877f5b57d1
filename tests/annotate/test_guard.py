"""What guard and edge refuse: other sites and hosts, large bodies, file objects, other people's hashes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from annotate.services import Services, WebSettings
from annotate.web import build_api
from store.database import Store
from store.people import Credentials
from tests.annotate.conftest import BASE_URL, OWN, bearer, open_client, sign_in
from tests.fakes import make_services

UNDO = "/v1/judgements/undo"
JOIN = "/annotate/gradio_api/queue/join"


FROM: list[tuple[dict[str, str], bool]] = [
    ({"sec-fetch-site": "same-origin"}, True),
    ({"origin": BASE_URL}, True),
    ({"sec-fetch-site": "same-origin", "origin": BASE_URL}, True),
    ({}, False),
    ({"sec-fetch-site": "cross-site"}, False),
    ({"sec-fetch-site": "same-site"}, False),
    ({"sec-fetch-site": "none"}, False),
    ({"origin": "https://evil.example"}, False),
    ({"origin": "http://127.0.0.1:7861"}, False),
    ({"origin": "https://127.0.0.1:7860"}, False),
    ({"origin": "null"}, False),
    ({"sec-fetch-site": "cross-site", "origin": BASE_URL}, False),
]


@pytest.mark.usefixtures("people")
def test_a_change_by_cookie_has_to_come_from_our_own_page(client: TestClient) -> None:
    sign_in(client, "annotator")
    for headers, passes in FROM:
        reply = client.post(UNDO, headers=headers)
        assert reply.status_code == (204 if passes else 403), headers
        assert passes or reply.json()["error"]["type"] == "foreign_origin"


def test_a_program_with_a_token_needs_no_origin(client: TestClient, people: dict[str, Credentials]) -> None:
    headers = {**bearer(people["annotator"]), "sec-fetch-site": "cross-site"}
    assert client.post(UNDO, headers=headers).status_code == 204


@pytest.mark.usefixtures("people")
def test_another_site_cannot_sign_somebody_in_or_out(client: TestClient) -> None:
    foreign = {"sec-fetch-site": "cross-site"}
    form = {"name": "annotator", "password": "annotator-password"}
    assert client.post("/login", data=form, headers=foreign).status_code == 403
    sign_in(client, "annotator")
    assert client.post("/logout", headers=foreign).status_code == 403
    assert client.post("/logout", headers=OWN).status_code == 303


@pytest.mark.usefixtures("people")
def test_reading_needs_no_origin(client: TestClient) -> None:
    sign_in(client, "tester")
    assert client.get("/v1/models", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_no_answer_invites_other_origins(client: TestClient, people: dict[str, Credentials]) -> None:
    origin = {"origin": "https://evil.example"}
    asked = {**origin, "access-control-request-method": "POST"}
    replies = [
        client.get("/healthz", headers=origin),
        client.get("/v1/models", headers={**origin, **bearer(people["tester"])}),
        client.options("/v1/feedback", headers=asked),
        client.options("/v1/feedback", headers={**asked, **bearer(people["tester"])}),
    ]
    for reply in replies:
        assert "access-control-allow-origin" not in reply.headers
    assert all(reply.status_code >= 400 for reply in replies[2:])


def test_only_our_own_hosts_are_answered(store: Store) -> None:
    own = ["127.0.0.1:7860", "localhost", "LOCALHOST:80", "[::1]:7860", "heed.example"]
    foreign = ["evil.example", "127.0.0.1.evil.example", "heed.example.evil.example:7860", ""]
    services = make_services(store, settings=WebSettings(allowed_hosts=("Heed.example",)))
    with open_client(services) as client:
        assert {client.get("/healthz", headers={"host": host}).status_code for host in own} == {200}
        for host in foreign:
            reply = client.get("/healthz", headers={"host": host})
            assert reply.status_code == 400, host
            assert "does not answer for that host" in reply.json()["error"]["message"]


@pytest.mark.usefixtures("people")
def test_forwarding_headers_of_strangers_change_nothing(client: TestClient) -> None:
    headers = {"x-forwarded-host": "evil.example", "x-forwarded-for": "1.2.3.4", "x-forwarded-proto": "https"}
    assert client.get("/healthz", headers=headers).status_code == 200
    for _ in range(5):  # a new address each time must not escape the throttle
        headers["x-forwarded-for"] += "1"
        client.post("/login", data={"name": f"x{_}", "password": "wrong"}, headers=headers)
    assert client.post("/login", data={"name": "y", "password": "wrong"}, headers=headers).status_code == 429


def scope(client: str, **headers: str) -> dict[str, Any]:
    given = {"host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in given.items()]
    return {
        "type": "http",
        "method": "GET",
        "path": "/",
        "scheme": "http",
        "client": (client, 1),
        "headers": raw,
    }


def pass_edge(settings: WebSettings, given: dict[str, Any]) -> dict[str, Any]:
    from annotate.edge import Edge

    seen: list[Any] = []

    async def app(scope: Any, *_: Any) -> None:
        seen.append(scope)

    async def nothing(*_: Any) -> Any:
        return {}

    asyncio.run(Edge(app, settings)(given, nothing, nothing))
    return dict(seen[0]) if seen else {}


def test_a_trusted_proxy_tells_client_and_scheme() -> None:
    settings = WebSettings(trusted_proxies=("10.0.0.0/8",))
    given = scope("10.0.0.7", x_forwarded_for="6.6.6.6, 5.5.5.5, 10.0.0.9", x_forwarded_proto="https")
    seen = pass_edge(settings, given)
    assert (seen["client"][0], seen["scheme"]) == ("5.5.5.5", "https")
    assert not pass_edge(settings, scope("10.0.0.7", x_forwarded_host="evil.example"))
    stranger = pass_edge(settings, scope("11.0.0.7", x_forwarded_for="5.5.5.5", forwarded="for=5.5.5.5"))
    assert stranger["client"][0] == "11.0.0.7"
    assert [name for name, _ in stranger["headers"]] == [b"host"]


def test_metrics_are_open_to_this_machine_but_not_through_a_proxy_on_it() -> None:
    from annotate.edge import DIRECT_LOOPBACK

    assert pass_edge(WebSettings(), scope("127.0.0.1"))[DIRECT_LOOPBACK]
    assert not pass_edge(WebSettings(), scope("127.0.0.1", x_forwarded_for="5.5.5.5"))[DIRECT_LOOPBACK]
    assert not pass_edge(WebSettings(), scope("192.168.1.2"))[DIRECT_LOOPBACK]


def test_every_answer_carries_the_security_headers(
    client: TestClient, people: dict[str, Credentials]
) -> None:
    replies = [
        client.get("/healthz"),
        client.get("/login"),
        client.get("/v1/people"),
        client.get("/annotate"),
    ]
    for reply in replies:
        assert "default-src 'self'" in reply.headers["content-security-policy"]
        assert "form-action 'self'" in reply.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "same-origin"
    assert client.get("/v1/models", headers=bearer(people["tester"])).headers["cache-control"] == "no-store"


def test_a_body_over_the_limit_is_refused_whether_it_says_so_or_not(
    client: TestClient, people: dict[str, Credentials]
) -> None:
    headers = bearer(people["tester"])
    big = json.dumps({"completion_id": "c", "rating": 1, "comment": "x" * 300_000}).encode()
    declared = client.post("/v1/feedback", content=big, headers=headers)
    assert (declared.status_code, declared.json()["error"]["type"]) == (413, "too_large")
    assert "262144 bytes" in declared.json()["error"]["message"]
    chunked = client.post("/v1/feedback", content=iter([big[:200_000], big[200_000:]]), headers=headers)
    assert chunked.status_code == 413


def test_an_import_has_its_own_larger_limit(store: Store, people: dict[str, Credentials]) -> None:
    services = make_services(store, settings=WebSettings(max_json_bytes=100, max_import_bytes=3_000))
    lines = b"".join(b'{"prompt": "question %d"}\n' % number for number in range(60))
    with open_client(services) as client:
        headers = bearer(people["admin"])
        assert client.post("/v1/import", content=lines, headers=headers).json()["added"] == 60
        for content in (lines * 3, iter([lines, lines, lines])):
            assert client.post("/v1/import", content=content, headers=headers).status_code == 413


def test_a_body_that_does_not_arrive_is_given_up(store: Store, people: dict[str, Credentials]) -> None:
    services = make_services(store, settings=WebSettings(body_timeout_s=0.05))
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    given = scope("127.0.0.1", authorization=f"Bearer {people['tester'].token}", content_length="9")
    given |= {"method": "POST", "path": "/v1/feedback", "query_string": b"", "raw_path": b"", "root_path": ""}
    asyncio.run(build_api(services)(given, never, send))
    assert sent[0]["status"] == 408


FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}


FILE_BODIES = [
    json.dumps({"data": [FILE]}),
    json.dumps({"data": [{"content": [{"file": FILE}]}]}),
    json.dumps({"data": [{"gradio.FileData": 1}]}),
    '{"data": [{"path": "/etc/passwd", "meta": {"\\u005ftype": "gradio.\\u0046ileData"}}]}',
    '{"data": [{"path": "a", "meta": {"_type": "gradio.FileData", "_type": "x"}}]}',
    '{"data": [{"path": "a", "meta": {"_type": "x", "_type": "gradio.FileData"}}]}',
]


def test_a_file_object_never_reaches_a_page(client: TestClient, people: dict[str, Credentials]) -> None:
    for body in FILE_BODIES:
        for content_type in ("application/json", "text/plain"):
            headers = {**bearer(people["annotator"]), "content-type": content_type}
            reply = client.post(JOIN, content=body, headers=headers)
            assert reply.status_code == 400, body
            assert "files cannot be sent to a page" in reply.json()["error"]["message"]


def test_what_is_not_json_never_reaches_a_page(client: TestClient, people: dict[str, Credentials]) -> None:
    for body in (b"not json", b"{", b"\xff\xfe", b"[" * 100_000, b'------x\r\nname="files"'):
        reply = client.post(JOIN, content=body, headers=bearer(people["annotator"]))
        assert (reply.status_code, reply.json()["error"]["type"]) == (400, "bad_value"), body[:20]


def test_talking_about_file_objects_is_no_file_object(
    client: TestClient, people: dict[str, Credentials]
) -> None:
    body = {"data": ["what is gradio.FileData?", "gradio.FileData", {"text": "gradio.FileData"}]}
    assert client.post(JOIN, json=body, headers=bearer(people["annotator"])).status_code == 404


def test_routes_of_gradio_that_no_page_uses_are_closed(
    client: TestClient, people: dict[str, Credentials]
) -> None:
    api = (
        "upload",
        "call/retrain",
        "call/x/1",
        "proxy=http://a",
        "file=/etc/passwd",
        "stream/1",
        "vibe-edit",
    )
    for path in (*(f"gradio_api/{name}" for name in api), "login", "logout", "monitoring/summary"):
        for method in ("GET", "POST"):
            reply = client.request(method, f"/admin/{path}", headers=bearer(people["admin"]))
            assert reply.status_code == 403, path


def test_a_page_session_belongs_to_who_used_it_first(
    client: TestClient, people: dict[str, Credentials]
) -> None:
    anna, eve = bearer(people["annotator"]), bearer(people["admin"])
    body = {"fn_index": 0, "data": [], "session_hash": "abc123"}
    assert (
        client.post(JOIN, json=body, headers=anna).status_code == 404
    )  # passed the guard; no page is mounted
    calls = [
        client.post(JOIN, json=body, headers=eve),
        client.get("/annotate/gradio_api/queue/data?session_hash=abc123", headers=eve),
        client.get("/admin/gradio_api/heartbeat/abc123", headers=eve),
        client.post("/annotate/gradio_api/cancel", json={**body, "event_id": "e"}, headers=eve),
    ]
    assert [(call.status_code, call.json()["error"]["type"]) for call in calls] == [
        (403, "foreign_session")
    ] * 4
    again = client.get("/annotate/gradio_api/queue/data?session_hash=abc123", headers=anna)
    assert again.status_code == 404


def test_an_unexpected_failure_says_nothing_about_the_inside(
    services: Services, people: dict[str, Credentials], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("annotate.api.people.read_people", fail)
    with open_client(services, raise_server_exceptions=False) as client:
        reply = client.get("/v1/people", headers=bearer(people["admin"]))
    assert (reply.status_code, reply.json()["error"]["type"]) == (500, "internal")
    assert "secret" not in reply.text
