"""Other sources of labels over HTTP: what there is, dropping one, the judge's run, synthetic pairs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from annotate.judge.desk import JudgeDesk
from annotate.judge.settings import JudgeSettings
from annotate.synthetic import SyntheticDesk
from store.database import Store
from store.outside import add_outside_labels
from store.people import Credentials
from tests.annotate.conftest import TaskMaker, bearer, open_client
from tests.annotate.judging import JudgeServer, serve
from tests.annotate.test_synthetic import HeedfulPolicy
from tests.fakes import make_services
from tests.serving.fakes import wait_until
from tests.store.test_outside import PAIR, RATING


@pytest.fixture
def headers(people: dict[str, Credentials]) -> dict[str, str]:
    return bearer(people["admin"])


@pytest.fixture
def judged(store: Store) -> Iterator[TestClient]:
    """A service with a judge behind it whose answer to everything is B."""
    with serve(JudgeServer(bias="B").app()) as url:
        judge = JudgeDesk(store, JudgeSettings(url=url, model="org/critic"))
        services = make_services(store, judge=judge, synthetic=SyntheticDesk(store, HeedfulPolicy()))
        with open_client(services) as client:
            yield client
        judge.close()
        services.synthetic.close()


def test_sources_are_counted_and_dropped_whole(
    client: TestClient, store: Store, headers: dict[str, str]
) -> None:
    add_outside_labels(store, [PAIR, RATING])
    assert client.get("/v1/sources", headers=headers).json() == [
        {"source": "import:trl", "labels": 1},
        {"source": "judge:m", "labels": 1},
    ]
    dropped = client.delete("/v1/sources/judge:m", headers=headers)
    assert dropped.json() == {"source": "judge:m", "labels": 1}
    again = client.delete("/v1/sources/judge:m", headers=headers)
    assert again.status_code == 404
    assert "known: import:trl" in again.json()["error"]["message"]


def test_a_source_with_a_slash_in_its_name_can_be_dropped(
    client: TestClient, store: Store, headers: dict[str, str]
) -> None:
    from dataclasses import replace

    add_outside_labels(store, [replace(PAIR, source="judge:org/critic")])
    assert client.delete("/v1/sources/judge:org/critic", headers=headers).json()["labels"] == 1


def test_the_judge_runs_in_the_background_and_tells_how_far_it_is(
    judged: TestClient, tasks: TaskMaker, headers: dict[str, str]
) -> None:
    for _ in range(3):
        tasks.add()
    begun = judged.post("/v1/judge/run", json={"limit": 2}, headers=headers)
    assert (begun.status_code, begun.json()["pairs"]) == (202, 2)
    wait_until(lambda: not judged.get("/v1/judge", headers=headers).json()["run"]["is_running"])
    status = judged.get("/v1/judge", headers=headers).json()
    assert (status["source"], status["calls_today"], status["labels"]) == ("judge:org/critic", 4, 0)
    assert (status["verdicts"]["tie"], status["run"]["ties"]) == (2, 2)
    assert status["agreement"]["kappa"] is None
    assert judged.post("/v1/judge/cancel", headers=headers).status_code == 409
    assert judged.post("/v1/judge/run", json={"limit": 0}, headers=headers).status_code == 422


def test_without_a_judge_the_routes_say_how_to_set_one_up(
    client: TestClient, headers: dict[str, str]
) -> None:
    for method, path in (("GET", "/v1/judge"), ("POST", "/v1/judge/cancel")):
        reply = client.request(method, path, headers=headers)
        assert reply.status_code == 404
        assert "--judge.url and --judge.model" in reply.json()["error"]["message"]


def test_synthetic_pairs_are_made_and_dropped_again(
    judged: TestClient, tasks: TaskMaker, headers: dict[str, str]
) -> None:
    assert judged.get("/v1/synthetic", headers=headers).json() is None
    tasks.add()
    body = {"name": "polite", "good": "Be brief.", "bad": "Flatter.", "num": 5}
    assert judged.post("/v1/synthetic", json=body, headers=headers).status_code == 202
    wait_until(lambda: not judged.get("/v1/synthetic", headers=headers).json()["is_running"])
    assert judged.get("/v1/synthetic", headers=headers).json()["added"] == 1
    assert judged.delete("/v1/sources/synthetic:polite", headers=headers).json()["labels"] == 1
    wrong = judged.post("/v1/synthetic", json=body | {"bad": "Be brief."}, headers=headers)
    assert (wrong.status_code, "are the same" in wrong.text) == (400, True)
