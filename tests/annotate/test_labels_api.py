"""Tasks and judgements over HTTP: blind, idempotent, and only while the lease lasts."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from store.clock import utc
from store.database import Store
from store.judgements import read_judgements
from store.people import Credentials, add_person, set_active
from store.tasks import lease_task
from tests.annotate.conftest import TaskMaker, bearer


@pytest.fixture
def headers(people: dict[str, Credentials]) -> dict[str, str]:
    return bearer(people["annotator"])


def next_task(client: TestClient, headers: dict[str, str], kind: str = "pair") -> dict[str, Any]:
    reply = client.post("/v1/tasks/next", json={"kind": kind}, headers=headers)
    assert reply.status_code == 200, reply.text
    task: dict[str, Any] = reply.json()
    return task


def judge(client: TestClient, headers: dict[str, str], task_id: str, **body: object) -> Any:
    return client.post(f"/v1/tasks/{task_id}/judgement", json=body, headers=headers)


def test_a_task_shows_texts_and_sides_and_nothing_else(
    client: TestClient, tasks: TaskMaker, headers: dict[str, str]
) -> None:
    assert client.post("/v1/tasks/next", headers=headers).status_code == 204
    tasks.add()
    task = next_task(client, headers)
    assert set(task) == {"task_id", "kind", "lease_expires_at", "messages", "left", "right"}
    assert {task["left"], task["right"]} == {"first answer", "second answer"}
    assert task["messages"] == [{"role": "user", "content": "question 1"}]
    until = datetime.fromisoformat(task["lease_expires_at"])
    assert until.utcoffset() == timedelta(0)
    assert next_task(client, headers)["task_id"] == task["task_id"]


def test_no_answer_before_or_at_the_judgement_tells_the_policy(
    client: TestClient, tasks: TaskMaker, headers: dict[str, str]
) -> None:
    task = tasks.add(version="v7")
    replies = [client.post("/v1/tasks/next", headers=headers)]
    task_id = replies[0].json()["task_id"]
    replies.append(client.post(f"/v1/tasks/{task_id}/heartbeat", headers=headers))
    replies.append(judge(client, headers, task_id, choice="left"))
    replies.append(client.post("/v1/judgements/undo", headers=headers))
    for reply in replies:
        seen = reply.text + json.dumps(dict(reply.headers))
        for secret in ("v7", "version", "model", "adapter", "policy-version", *task.completion_ids):
            assert secret not in seen, (secret, seen)


def test_ten_posts_at_once_are_one_judgement(
    client: TestClient, store: Store, tasks: TaskMaker, headers: dict[str, str]
) -> None:
    tasks.add()
    task_id = next_task(client, headers)["task_id"]
    body = {"choice": "left", "strength": 2, "reasons": ["clearer"], "comment": "yes", "active_ms": 1200}
    with ThreadPoolExecutor(10) as pool:
        replies = list(pool.map(lambda _: judge(client, headers, task_id, **body), range(10)))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.text for reply in replies}) == 1
    assert len(read_judgements(store)) == 1


def test_another_choice_on_a_judged_task_is_409_and_the_first_stays(
    client: TestClient, store: Store, tasks: TaskMaker, headers: dict[str, str]
) -> None:
    tasks.add()
    task_id = next_task(client, headers)["task_id"]
    assert judge(client, headers, task_id, choice="left").status_code == 200
    second = judge(client, headers, task_id, choice="right")
    assert (second.status_code, second.json()["error"]["type"]) == (409, "state_conflict")
    assert len(read_judgements(store)) == 1


def test_a_lost_lease_is_409_and_says_that_nothing_was_saved(
    client: TestClient,
    store: Store,
    tasks: TaskMaker,
    headers: dict[str, str],
    people: dict[str, Credentials],
) -> None:
    task = tasks.add()
    person_id = people["annotator"].person.person_id
    before = utc() - timedelta(hours=1)
    lease_task(store, person_id, "pair", lambda t, _p: t.completion_ids[0], 5.0, before)
    for reply in (
        judge(client, headers, task.task_id, choice="left"),
        client.post(f"/v1/tasks/{task.task_id}/heartbeat", headers=headers),
        judge(client, headers, "t_unknown", choice="left"),
    ):
        assert (reply.status_code, reply.json()["error"]["type"]) == (409, "lease_lost")
        assert "nothing was saved" in reply.json()["error"]["message"]
    assert not read_judgements(store)


def test_the_same_task_is_leased_to_one_person_only(
    client: TestClient, store: Store, tasks: TaskMaker
) -> None:
    tasks.add()
    crowd = [bearer(add_person(store, f"person {number}", "annotator")) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda who: client.post("/v1/tasks/next", headers=who), crowd))
    assert sorted(reply.status_code for reply in replies) == [200] + [204] * 7


def test_undo_gives_the_task_back(client: TestClient, tasks: TaskMaker, headers: dict[str, str]) -> None:
    assert client.post("/v1/judgements/undo", headers=headers).status_code == 204
    tasks.add()
    task = next_task(client, headers)
    judge(client, headers, task["task_id"], choice="skip", reasons=["bad_prompt"], unsafe=["right"])
    back = client.post("/v1/judgements/undo", headers=headers).json()
    earlier = back.pop("earlier")
    assert {**back, "lease_expires_at": ""} == {**task, "lease_expires_at": ""}
    assert (earlier["choice"], earlier["reasons"], earlier["unsafe"]) == ("skip", ["bad_prompt"], ["right"])
    assert judge(client, headers, task["task_id"], choice="right").status_code == 200


def test_an_older_judgement_can_be_taken_back_by_its_id(
    client: TestClient, store: Store, tasks: TaskMaker, headers: dict[str, str]
) -> None:
    ids = []
    for _ in range(3):
        tasks.add()
        ids.append(judge(client, headers, next_task(client, headers)["task_id"], choice="tie").json())
    undo = client.post("/v1/judgements/undo", json={"judgement_id": ids[0]["judgement_id"]}, headers=headers)
    assert undo.json()["task_id"] == ids[0]["task_id"]
    assert [j.undone for j in read_judgements(store)] == [False, False, True]
    unknown = client.post("/v1/judgements/undo", json={"judgement_id": "j_0"}, headers=headers)
    assert unknown.status_code == 204


def test_a_strength_beyond_the_scale_is_400_and_names_the_scale(
    client: TestClient, store: Store, tasks: TaskMaker, headers: dict[str, str]
) -> None:
    tasks.add()
    reply = judge(client, headers, next_task(client, headers)["task_id"], choice="left", strength=3)
    assert reply.status_code == 400
    assert "strength 3 is outside 1..2, what the scale of 5 points has" in reply.json()["error"]["message"]
    assert not read_judgements(store)


def test_a_single_answer_has_no_right_side(
    client: TestClient, tasks: TaskMaker, headers: dict[str, str]
) -> None:
    tasks.add("single")
    task = next_task(client, headers, "single")
    assert (task["kind"], task["left"], task["right"]) == ("single", "only answer", None)
    assert judge(client, headers, task["task_id"], choice="left").status_code == 400
    assert judge(client, headers, task["task_id"], choice="down").status_code == 200


MALFORMED: list[Any] = [
    {},
    {"choice": "best"},
    {"choice": "left", "strength": 4},
    {"choice": "left", "unsafe": ["c_1"]},
    {"choice": "left", "unsafe": "left"},
    {"choice": "left", "strength": 0},
    {"choice": "left", "active_ms": -1},
    {"choice": "left", "reasons": ["r"] * 13},
    {"choice": "left", "comment": "a\x00b"},
    {"choice": "left", "comment": "a\ud800b"},
    {"choice": "left", "comment": "a\x1bb"},
    {"choice": "left", "comment": 5},
    {"choice": "left", "version": "v1"},
    ["left"],
]


def test_a_malformed_judgement_is_422_and_names_the_field(
    client: TestClient, store: Store, tasks: TaskMaker, headers: dict[str, str]
) -> None:
    tasks.add()
    path = f"/v1/tasks/{next_task(client, headers)['task_id']}/judgement"
    given = {**headers, "content-type": "application/json"}
    for body in MALFORMED:
        reply = client.post(path, content=json.dumps(body).encode(), headers=given)
        assert (reply.status_code, reply.json()["error"]["type"]) == (422, "invalid"), body
        assert reply.json()["error"]["message"].startswith("body")
    assert not read_judgements(store)


COMMENTS = (
    "' OR 1=1; DROP TABLE judgements; --",
    "\u202eevil\u200b",
    "<img src=x onerror=alert(1)>",
    "=1+1",
    "👩‍👩‍👧" * 400,
)


def test_text_comes_back_byte_for_byte(
    client: TestClient, store: Store, tasks: TaskMaker, headers: dict[str, str]
) -> None:
    for comment in COMMENTS:
        tasks.add()
        task_id = next_task(client, headers)["task_id"]
        assert judge(client, headers, task_id, choice="left", comment=comment).status_code == 200
        assert read_judgements(store)[0].comment == comment


def test_someone_deactivated_between_task_and_judgement_is_out(
    client: TestClient,
    store: Store,
    tasks: TaskMaker,
    headers: dict[str, str],
    people: dict[str, Credentials],
) -> None:
    tasks.add()
    task_id = next_task(client, headers)["task_id"]
    set_active(store, people["annotator"].person.person_id, False, "admin")
    assert judge(client, headers, task_id, choice="left").status_code == 401
    assert not read_judgements(store)
    assert next_task(client, bearer(people["admin"]))["task_id"] == task_id
