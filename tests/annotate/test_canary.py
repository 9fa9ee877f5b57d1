"""The canary at the doors: who is routed, what the routes and the panel tell, and what a thumb sets off."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from fastapi.testclient import TestClient

from annotate.canary import read_trials
from annotate.pages.admin.canary import CanarySection
from annotate.pages.admin.panels.canary import write_past_trials, write_trial
from store.canaries import read_canaries, read_canary
from store.canary_rows import Canary
from store.completions import save_completion
from store.database import Store
from store.people import Credentials
from store.policies import add_policy, promote
from store.ratings import save_rating
from tests.annotate.conftest import bearer, open_client
from tests.annotate.pages import as_person, lay_out
from tests.canary_desk import StoreDesk
from tests.fakes import ScriptedSample, make_services
from tests.store import samples

FIGURES = {"conversations": 1, "up": 0, "down": 0}


@pytest.fixture(autouse=True)
def candidate(store: Store) -> None:
    add_policy(store, "v1", "v0", None, None)


@pytest.fixture
def headers(people: dict[str, Credentials]) -> dict[str, str]:
    return bearer(people["admin"])


def rate_many(
    store: Store, canary: Canary, person_id: str, ups: int, downs: int, is_candidates: bool
) -> None:
    """That many thumbs on the answers of one side, each in a conversation of its own."""
    places = (f"cv_{n}" for n in itertools.count() if canary.takes(f"cv_{n}") == is_candidates)
    version = canary.version if is_candidates else canary.live
    for place, value in zip(places, [1] * ups + [-1] * downs, strict=False):
        said = samples.answer(version=version, conversation_id=place, person_id=person_id)
        save_rating(store, save_completion(store, said).completion_id, person_id, value)  # type: ignore[arg-type]


def chat(client: TestClient, people: dict[str, Credentials], **more: str) -> str:
    """The id of an answer to a tester."""
    body = {"model": "live", "messages": [{"role": "user", "content": "Hello?"}]}
    reply = client.post("/v1/chat/completions", json=body | more, headers=bearer(people["tester"]))
    assert reply.is_success, reply.text
    return str(reply.json()["id"])


def test_every_request_is_routed_by_its_conversation_or_its_own_id(
    store: Store, people: dict[str, Credentials]
) -> None:
    asked: list[tuple[str, str]] = []

    def route(model: str, place: str) -> str:
        asked.append((model, place))
        return "base"

    sample = ScriptedSample()
    with open_client(make_services(store, sample, route=route)) as client:
        chat(client, people, conversation_id="cv_1")
        alone = chat(client, people)
    assert asked == [("live", "cv_1"), ("live", alone)]
    assert [given[0] for given in sample.asked] == ["base", "base"]


def test_a_thumb_that_was_saved_is_told(store: Store, people: dict[str, Credentials]) -> None:
    told: list[bool] = []
    with open_client(make_services(store, rated=lambda: told.append(True))) as client:
        body = {"completion_id": chat(client, people), "rating": -1}
        client.post("/v1/feedback", json=body, headers=bearer(people["tester"])).raise_for_status()
    assert told == [True]


def test_an_admin_starts_watches_and_stops_one_over_http(
    store: Store, people: dict[str, Credentials], headers: dict[str, str]
) -> None:
    with open_client(make_services(store, canary=StoreDesk(store))) as client:
        empty = client.get("/v1/canary", headers=headers).json()
        assert empty == {"running": None, "measured_share": None, "history": []}
        body = {"version": "v1", "share": 0.25, "reason": "a first look"}
        begun = client.post("/v1/canary", json=body, headers=headers)
        assert (begun.status_code, begun.json()["actor"], begun.json()["share"]) == (201, "admin", 0.25)
        assert client.post("/v1/canary", json=body, headers=headers).status_code == 409
        canary = read_canary(store)
        assert canary is not None
        rate_many(store, canary, people["tester"].person.person_id, 1, 0, is_candidates=True)
        shown = client.get("/v1/canary", headers=headers).json()
        assert shown["measured_share"] == 1.0
        assert shown["running"]["sides"]["candidate"] == FIGURES | {"up": 1}
        assert shown["running"]["verdict"]["worse_by"]["upper"] <= 1.0
        assert "each side needs 10" in shown["running"]["says"]
        stopped = client.post("/v1/canary/stop", json={"reason": "seen enough"}, headers=headers).json()
        assert (stopped["outcome"], stopped["ended_by"]) == ("stopped", "admin")
        assert client.post("/v1/canary/stop", headers=headers).status_code == 409
        client.post("/v1/canary", json={"version": "v1"}, headers=headers)
        promoted = client.post("/v1/canary/promote", headers=headers)
        assert (promoted.status_code, promoted.json()["version"]) == (200, "v1")
        history = client.get("/v1/canary", headers=headers).json()["history"]
        assert [trial["canary"]["outcome"] for trial in history] == ["promoted", "stopped"]


@pytest.mark.parametrize("body", [{"version": "v1", "share": 1.0}, {"version": "live"}, {"share": 0.1}])
def test_a_canary_that_makes_no_sense_is_refused(
    store: Store, headers: dict[str, str], body: dict[str, Any]
) -> None:
    with open_client(make_services(store, canary=StoreDesk(store))) as client:
        assert client.post("/v1/canary", json=body, headers=headers).status_code == 422


def test_where_nothing_can_be_tried_the_route_says_so(client: TestClient, headers: dict[str, str]) -> None:
    refused = client.post("/v1/canary", json={"version": "v1"}, headers=headers)
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "this service serves no canary")


def test_the_panel_starts_shows_and_promotes_a_canary(store: Store, people: dict[str, Credentials]) -> None:
    root = as_person(people["admin"].person)
    section = lay_out(CanarySection, make_services(store, canary=StoreDesk(store)))
    assert "No version is on trial" in str(section.read())
    assert "Pick a version first." in str(section.ask_start(None, 10, root))
    assert "must lie between 0 and 100" in str(section.ask_start("v1", 0, root))
    assert "Let v1 (candidate) answer 12.5 % of conversations beside v0?" in str(
        section.ask_start("v1", 12.5, root)
    )
    assert read_canaries(store) == []
    assert "v1 is on trial beside v0." in str(section.start("v1", " a look ", 12.5, root))
    running = read_canary(store)
    assert running is not None
    assert (running.share, running.actor, running.reason) == (0.125, "admin", "a look")
    rate_many(store, running, people["tester"].person.person_id, 3, 9, is_candidates=True)
    rate_many(store, running, people["tester"].person.person_id, 30, 10, is_candidates=False)
    shown = str(section.read())
    assert "12.5 % of conversations set, 23.1 % measured" in shown
    assert "25 %" in shown
    assert "The candidate is between" in shown
    assert "withdrawn by itself once it is surely worse." in shown
    assert "Make v1 live in place of v0?" in str(section.ask_promote(root))
    assert "V9 is not on trial any more" in str(section.promote("v9", "", root))
    assert "v1 is live; before it was v0." in str(section.promote("v1", "", root))
    assert "25 % of 12" in str(section.read())


def test_what_people_typed_is_escaped_and_an_empty_history_says_so(store: Store) -> None:
    services = make_services(store, canary=StoreDesk(store))
    assert "No canary has ended yet." in write_past_trials([])
    assert "train one first" in write_trial(None, can_start=False)
    desk = StoreDesk(store)
    desk.start("v1", 0.1, "<b>ann", "<i>")
    assert "<b>ann" not in write_trial(read_trials(services)[0], can_start=True)
    desk.stop("<u>bob", "<img src=x>")
    past = write_past_trials(read_trials(services))
    assert "<img" not in past
    assert "<u>" not in past


def test_a_clearly_better_candidate_is_said_to_be_so(store: Store, people: dict[str, Credentials]) -> None:
    add_policy(store, "v2", "v0", None, None)
    promote(store, "v1", "ann")
    desk = StoreDesk(store)
    canary = desk.start("v2", 0.5, "ann")
    rate_many(store, canary, people["tester"].person.person_id, 30, 2, is_candidates=True)
    rate_many(store, canary, people["tester"].person.person_id, 5, 30, is_candidates=False)
    (trial,) = read_trials(make_services(store, canary=desk))
    assert trial.verdict is not None
    assert trial.verdict.decision == "better"
    assert "points better, whenever one looks: it can be promoted." in trial.says
