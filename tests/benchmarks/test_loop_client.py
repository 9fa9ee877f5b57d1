"""The benchmark's client against a tiny server on a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.client import ApiError, HeedClient
from tests.benchmarks.fakes import ScriptedService, serve

TASK = {
    "task_id": "t1",
    "lease_expires_at": "2030-01-01T00:00:00Z",
    "messages": [{"role": "user", "content": "Hi!"}],
    "left": "a",
    "right": "b",
}


@pytest.fixture
def service() -> ScriptedService:
    return ScriptedService()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def client(service: ScriptedService, waits: list[float]) -> Iterator[HeedClient]:
    with (
        serve(service.answer) as url,
        HeedClient(url, "secret", patience_s=10.0, sleep=waits.append) as client,
    ):
        yield client


def busy(message: str) -> dict[str, object]:
    return {"error": {"type": "busy", "message": message}}


def test_a_busy_service_is_asked_again_after_the_time_it_names(
    client: HeedClient, service: ScriptedService, waits: list[float]
) -> None:
    service.will_say(503, busy("starting"), retry_after="2")
    service.will_say(429, busy("slow down"))
    service.will_say(200, TASK)
    task = client.next_pair()
    assert task is not None
    assert (task.task_id, task.left, task.right) == ("t1", "a", "b")
    assert waits == [2.0, 4.0]
    assert service.asked == [("POST", "/v1/tasks/next", "secret", {"kind": "pair"})] * 3


def test_patience_ends_with_the_services_own_words(client: HeedClient, service: ScriptedService) -> None:
    for _ in range(9):
        service.will_say(503, busy("no room"))
    with pytest.raises(ApiError, match=r"503: GET /v1/rounds/r1: no room"):
        client.read_round("r1")


def test_a_lost_lease_is_not_tried_again(client: HeedClient, service: ScriptedService) -> None:
    service.will_say(409, {"error": {"type": "lease_lost", "message": "t1 is no longer yours"}})
    with pytest.raises(ApiError, match="no longer yours") as caught:
        client.judge("t1", "left", 2)
    assert caught.value.status == 409
    assert service.asked[0][3] == {"choice": "left", "strength": 2}


def test_no_task_is_none_and_a_tie_has_no_strength(client: HeedClient, service: ScriptedService) -> None:
    service.will_say(204)
    assert client.next_pair() is None
    service.will_say(200, {})
    client.judge("t1", "tie", 0)
    assert service.asked[1][3] == {"choice": "tie"}


def test_an_answer_carries_what_the_metrics_need(client: HeedClient, service: ScriptedService) -> None:
    drawn = {"version": "v2", "logprob_sum": -3.5, "num_tokens": 4, "finish_reason": "stop", "seed": 9}
    service.will_say(200, {"id": "c1", "choices": [{"message": {"content": "Hi."}}], "heed": drawn})
    answer = client.ask("v2", [{"role": "user", "content": "Hi!"}], seed=9, max_tokens=16)
    assert (answer.completion_id, answer.text, answer.logprob_sum, answer.num_tokens) == (
        "c1",
        "Hi.",
        -3.5,
        4,
    )
    asked = service.asked[0][3]
    assert (asked["temperature"], asked["top_p"], asked["seed"]) == (1.0, 1.0, 9)


def test_many_prompts_are_sent_in_several_requests(client: HeedClient, service: ScriptedService) -> None:
    for _ in range(3):
        service.will_say(201, {})
    client.add_prompts([[{"role": "user", "content": f"{place}?"}] for place in range(450)], "benchmark")
    assert [len(asked[3]["prompts"]) for asked in service.asked] == [200, 200, 50]


def test_nobody_listening_is_not_ready() -> None:
    with HeedClient("http://127.0.0.1:9", "secret") as client:
        assert not client.is_ready()
