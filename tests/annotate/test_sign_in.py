"""Signing in and out: one text for every failure, a new session each time, links that work once."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from annotate.auth import AUTOMATION, FIRST_PAGES, read_automation
from annotate.services import Services, WebSettings
from annotate.sign_in_page import STYLE, refused_page, sign_in_page
from store.database import Store
from store.people import Credentials, read_people, set_active
from store.sessions import make_sign_in_link, open_session
from tests.annotate.conftest import OWN, ROLES, bearer, open_client, sign_in
from tests.fakes import make_services

COOKIE = "heed_session"


def try_password(client: TestClient, name: str, password: str, **more: str) -> tuple[int, str]:
    reply = client.post("/login", data={"name": name, "password": password, **more})
    return reply.status_code, reply.headers.get("location", reply.text)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.usefixtures("people")
def test_a_person_lands_on_their_first_page(client: TestClient, role: str) -> None:
    assert try_password(client, role, f"{role}-password") == (303, FIRST_PAGES[role])  # type: ignore[index]


@pytest.mark.usefixtures("people")
def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(client: TestClient) -> None:
    reply = client.post("/login", data={"name": "tester", "password": "tester-password"})
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie


@pytest.mark.usefixtures("people")
def test_behind_https_the_cookie_is_secure_and_bound_to_the_host(store: Store) -> None:
    with open_client(make_services(store, settings=WebSettings(public_https=True))) as client:
        reply = client.post("/login", data={"name": "tester", "password": "tester-password"})
        cookie = reply.headers["set-cookie"]
        assert cookie.startswith(f"__Host-{COOKIE}=")
        assert "; Secure" in cookie
        assert "Domain" not in cookie
        assert reply.headers["strict-transport-security"]
        token = cookie.partition("=")[2].partition(";")[0]
        with_cookie = {"cookie": f"__Host-{COOKIE}={token}"}
        assert client.get("/v1/models", headers=with_cookie).status_code == 200
        origin = {**with_cookie, "origin": "https://127.0.0.1:7860"}  # the proxy speaks http to us
        assert client.post("/logout", headers=origin).status_code == 303


def test_a_wrong_name_and_a_wrong_password_look_the_same(
    client: TestClient, people: dict[str, Credentials]
) -> None:
    set_active(client.app.state.services.store, people["admin"].person.person_id, False, "test")  # type: ignore[attr-defined]
    answers = {
        try_password(client, name, password)[0::1]
        for name, password in (
            ("tester", "wrong-password"),
            ("nobody", "wrong-password"),
            ("admin", "admin-password"),
        )
    }
    texts = {(status, re.sub(r'value="\w+"', "", text)) for status, text in answers}
    assert len(texts) == 1
    assert "The name or the password is not right." in texts.pop()[1]


@pytest.mark.usefixtures("people")
def test_the_sixth_wrong_password_has_to_wait_and_so_has_the_right_one(client: TestClient) -> None:
    assert [try_password(client, "tester", "wrong")[0] for _ in range(5)] == [401] * 5
    reply = client.post("/login", data={"name": "TESTER", "password": "tester-password"})
    assert reply.status_code == 429
    assert reply.headers["retry-after"] == "1"
    assert "Too many attempts. Try again in 1 s." in reply.text


def test_a_flood_of_sign_ins_is_turned_away_instead_of_hashed(client: TestClient) -> None:
    with ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(lambda n: try_password(client, f"name{n}", "wrong")[0], range(100)))
    assert set(statuses) <= {401, 429}
    assert statuses.count(401) <= 5 + 1  # one client has five tries, and a second may pass meanwhile


def test_signing_in_gives_a_new_session_and_ends_the_old_one(
    client: TestClient, store: Store, people: dict[str, Credentials]
) -> None:
    planted = open_session(store, people["annotator"].person.person_id)
    client.cookies.set(COOKIE, planted)
    reply = client.post("/login", data={"name": "tester", "password": "tester-password"}, headers=OWN)
    fresh = reply.cookies[COOKIE]
    assert fresh != planted
    client.cookies.clear()
    assert client.get("/v1/models", headers={"cookie": f"{COOKIE}={fresh}"}).status_code == 200
    assert client.get("/docs", headers={"cookie": f"{COOKIE}={planted}"}).status_code == 401


def test_a_cookie_nobody_issued_is_nobody(client: TestClient) -> None:
    for made_up in ("x", "a" * 43, "%00", '"'):
        assert client.get("/docs", headers={"cookie": f"{COOKIE}={made_up}"}).status_code == 401


@pytest.mark.usefixtures("people")
def test_signing_out_ends_the_session_for_good(client: TestClient) -> None:
    sign_in(client, "tester")
    token = client.cookies[COOKIE]
    reply = client.post("/logout", headers=OWN)
    assert (reply.status_code, reply.headers["location"]) == (303, "/login")
    assert COOKIE not in client.cookies
    assert client.get("/v1/models", headers={"cookie": f"{COOKIE}={token}"}).status_code == 401
    assert client.get("/logout").status_code == 405


def test_a_deactivated_person_is_out_at_once(
    client: TestClient, store: Store, people: dict[str, Credentials]
) -> None:
    sign_in(client, "tester")
    set_active(store, people["tester"].person.person_id, False, "admin")
    assert client.get("/v1/models").status_code == 401
    assert client.get("/v1/models", headers=bearer(people["tester"])).status_code == 401


def test_a_sign_in_link_works_once(client: TestClient, store: Store, people: dict[str, Credentials]) -> None:
    token = make_sign_in_link(store, people["annotator"].person.person_id)
    first = client.get(f"/login?token={token}")
    assert (first.status_code, first.headers["location"]) == (303, "/annotate")
    assert client.post("/v1/judgements/undo", headers=OWN).status_code == 204
    client.cookies.clear()
    second = client.get(f"/login?token={token}")
    assert second.status_code == 401
    assert "used already or is too old" in second.text
    assert not client.cookies


@pytest.mark.parametrize("goal", ["/annotate", "/annotate/", "/admin/?tab=people"])
@pytest.mark.usefixtures("people")
def test_after_signing_in_one_is_back_where_one_wanted_to_go(client: TestClient, goal: str) -> None:
    assert f'value="{goal}"' in client.get("/login", params={"next": goal}).text
    assert try_password(client, "admin", "admin-password", next=goal) == (303, goal)


@pytest.mark.parametrize(
    "goal",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/v1/people"],
)
@pytest.mark.usefixtures("people")
def test_signing_in_never_leads_to_another_site(client: TestClient, goal: str) -> None:
    assert "evil" not in client.get("/login", params={"next": goal}).text
    assert try_password(client, "admin", "admin-password", next=goal) == (303, "/admin")


def test_the_admin_token_acts_as_one_person_called_automation(store: Store) -> None:
    services = make_services(store, settings=WebSettings(admin_token="a-long-admin-token"))
    with open_client(services) as client:
        headers = {"authorization": "Bearer a-long-admin-token"}
        for _ in range(3):
            assert client.get("/v1/people", headers=headers).status_code == 200
        assert [(person.name, person.role) for person in read_people(store)] == [(AUTOMATION, "admin")]
        for wrong in ("a-long-admin-toke", "a-long-admin-token2", "", "ä"):
            wrong_headers = {"authorization": f"Bearer {wrong}".encode("latin-1")}
            assert client.get("/v1/people", headers=wrong_headers).status_code == 401  # type: ignore[arg-type]
        set_active(store, read_automation(store).person_id, False, "admin")
        assert client.get("/v1/people", headers=headers).status_code == 401


def test_the_automation_person_is_made_once_however_many_ask(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        people = set(pool.map(lambda _: read_automation(store).person_id, range(16)))
    assert len(people) == 1


@pytest.mark.usefixtures("people")
def test_a_wrong_token_is_not_saved_by_a_good_cookie(client: TestClient) -> None:
    sign_in(client, "tester")
    assert client.get("/v1/models", headers={"authorization": "Bearer wrong"}).status_code == 401


def test_what_people_typed_is_shown_back_as_text_only() -> None:
    page = sign_in_page("/admin", "a <b>", '"><script>alert(1)</script>')
    assert "<script" not in page
    assert "a &lt;b&gt;" in page
    assert "<i>" not in refused_page("<i>", "/chat")


def test_the_sign_in_page_loads_nothing_and_fits_a_phone() -> None:
    page = sign_in_page()
    assert 'name="viewport"' in page
    assert not re.search(r"(src|href)=\"(?!data:,|/)", page)
    assert "url(" not in STYLE
    assert "prefers-color-scheme: dark" in STYLE


def test_the_colours_of_the_sign_in_page_can_be_read_in_both_themes() -> None:
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", part)) for part in STYLE.split("@media", 1))
    for theme in (light, {**light, **dark}):
        pairs = [("ink", "card"), ("soft", "card"), ("accent", "card"), ("ink", "ground")]
        for text, ground in [*pairs, ("on-accent", "accent"), ("bad", "bad-ground")]:
            assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_services_are_not_needed_to_know_who_nobody_is(services: Services) -> None:
    with open_client(services) as client:
        assert client.get("/docs").status_code == 401
