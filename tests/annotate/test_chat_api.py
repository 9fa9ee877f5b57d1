"""The OpenAI-compatible door and feedback; see test_openai.py for the client people use."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from annotate.api import asking
from annotate.chat import answer
from annotate.services import Services
from store.completions import new_conversation_id, read_completion
from store.database import Store
from store.people import Credentials
from store.records import Sampling
from tests.annotate.conftest import bearer
from tests.fakes import ScriptedSample

URL = "/v1/chat/completions"
MESSAGES: Any = [{"role": "user", "content": "Hello?"}]
HELLO = {"messages": MESSAGES}


@pytest.fixture
def headers(people: dict[str, Credentials]) -> dict[str, str]:
    return bearer(people["tester"])


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_a_whole_answer_has_the_shape_openai_gives(
    client: TestClient, store: Store, headers: dict[str, str]
) -> None:
    reply = client.post(URL, json={**HELLO, "model": "live", "seed": 5, "temperature": 0}, headers=headers)
    assert reply.status_code == 200
    assert reply.headers["x-policy-version"] == "v0"
    body = reply.json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "v0"
    message = {"role": "assistant", "content": "Hello, world.", "refusal": None}
    assert body["choices"][0]["message"] == message
    assert body["choices"][0]["logprobs"] is None
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    assert body["heed"]["logprob_sum"] == -6.0
    kept = read_completion(store, body["id"])
    assert (kept.sampling.seed, kept.sampling.temperature) == (5, 0.0)


def test_a_stream_gives_the_same_answer_in_pieces(
    client: TestClient, store: Store, headers: dict[str, str]
) -> None:
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    reply = client.post(URL, json=body, headers=headers)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["x-policy-version"] == "v0"
    *pieces, end, usage = events(reply.text)
    assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == "Hello, world."
    assert pieces[0]["choices"][0]["delta"]["role"] == "assistant"
    assert end["choices"][0]["finish_reason"] == "stop"
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 4)
    assert len({event["id"] for event in (*pieces, end, usage)}) == 1
    assert read_completion(store, end["id"]).text == "Hello, world."


def test_draws_differ_unless_a_seed_is_given(
    client: TestClient, sample: ScriptedSample, headers: dict[str, str]
) -> None:
    for _ in range(4):
        client.post(URL, json=HELLO, headers=headers)
    assert len({sampling.seed for _, _, sampling in sample.asked}) > 1


def test_text_parts_are_read_as_one_text(
    client: TestClient, sample: ScriptedSample, headers: dict[str, str]
) -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    client.post(URL, json={"messages": [{"role": "user", "content": parts}]}, headers=headers)
    assert sample.asked[0][1] == ({"role": "user", "content": "Hello"},)


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"audio": {"a": 1}, "tools": []}, 400, "not supported here: audio, tools; leave it out"),
    ({"frequency_penalty": 0.5}, 400, "not supported here: frequency_penalty"),
    ({"top_logprobs": 3}, 400, "top_logprobs is only told with logprobs"),
    ({"stop": ["x", ""]}, 400, "none of them empty"),
    ({"stop": ["a", "b", "c", "d", "e"]}, 422, "body.stop"),
    ({"stop": "a\x00"}, 422, "U+0000"),
    ({"n": 9}, 422, "body.n"),
    ({"logprobs": True, "top_logprobs": 21}, 422, "body.top_logprobs"),
    ({"max_tokens": 100_000}, 400, "max_tokens 100000 is over the limit of 4096"),
    ({"model": "v99"}, 404, "policy 'v99' is unknown"),
    ({"messages": []}, 422, "body.messages"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, 400, "must end with one from the user"),
    ({"messages": [{"role": "user", "content": "a\x00"}]}, 422, "U+0000"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 422, "body.messages"),
    ({"temperature": -1}, 422, "body.temperature"),
    ({"top_p": 0}, 422, "body.top_p"),
    ({"max_tokens": 0}, 422, "body.max_tokens"),
    ({"seed": "first"}, 422, "body.seed"),
]


@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_answered_is_refused_before_the_first_word(
    client: TestClient, headers: dict[str, str], stream: bool
) -> None:
    for more, status, words in REFUSED:
        reply = client.post(URL, json={**HELLO, **more, "stream": stream}, headers=headers)
        assert reply.status_code == status, more
        error = reply.json()["error"]
        assert words in error["message"]
        assert set(error) == {"message", "type", "param", "code"}, "OpenAI's shape"


def test_options_without_effect_are_let_through(client: TestClient, headers: dict[str, str]) -> None:
    more = {"user": "me", "n": 1, "stop": None, "metadata": {"a": "b"}, "presence_penalty": 0.0}
    assert client.post(URL, json={**HELLO, **more}, headers=headers).status_code == 200


def test_an_engine_that_breaks_mid_stream_says_so_in_the_stream(
    client: TestClient, store: Store, sample: ScriptedSample, headers: dict[str, str]
) -> None:
    sample.breaks_after = 2
    reply = client.post(URL, json={**HELLO, "stream": True}, headers=headers)
    lines = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    assert last["error"]["type"] == "internal"
    assert "broke" in last["error"]["message"]
    assert read_completion(store, first["id"]).finish_reason == "cancelled"


def test_the_newest_thumb_counts_and_zero_takes_it_back(
    client: TestClient, headers: dict[str, str], people: dict[str, Credentials]
) -> None:
    conversation_id = new_conversation_id()
    asked = client.post(URL, json={**HELLO, "conversation_id": conversation_id}, headers=headers).json()

    def rate(rating: int, **more: object) -> Any:
        body = {"completion_id": asked["id"], "rating": rating, **more}
        return client.post("/v1/feedback", json=body, headers=headers)

    def thumb() -> int:
        shown = client.get(f"/v1/conversations/{conversation_id}", headers=headers).json()
        rating: int = shown["turns"][0]["rating"]
        return rating

    first = rate(1, reasons=["clear"], comment="good")
    assert first.status_code == 201
    assert rate(1, reasons=["clear"], comment="good").json() == first.json()
    assert thumb() == 1
    rate(-1)
    assert thumb() == -1
    rate(0)
    assert thumb() == 0
    assert rate(2).status_code == 422
    other = bearer(people["admin"])
    body = {"completion_id": asked["id"], "rating": 1}
    assert client.post("/v1/feedback", json=body, headers=other).status_code == 404


def test_conversations_are_seen_by_their_owner_only(
    client: TestClient, headers: dict[str, str], people: dict[str, Credentials]
) -> None:
    conversation_id = new_conversation_id()
    client.post(URL, json={**HELLO, "conversation_id": conversation_id}, headers=headers)
    mine = client.get("/v1/conversations", headers=headers).json()
    assert [(one["conversation_id"], one["title"]) for one in mine] == [(conversation_id, "Hello?")]
    turn = client.get(f"/v1/conversations/{conversation_id}", headers=headers).json()["turns"][0]
    assert (turn["question"]["content"], turn["text"], turn["version"]) == ("Hello?", "Hello, world.", "v0")
    assert turn["created_at"].endswith("Z")
    other = bearer(people["admin"])
    assert client.get("/v1/conversations", headers=other).json() == []
    assert client.get(f"/v1/conversations/{conversation_id}", headers=other).status_code == 404


def test_two_answers_are_compared_by_their_ids(
    client: TestClient, headers: dict[str, str], store: Store
) -> None:
    ids = [client.post(URL, json=HELLO, headers=headers).json()["id"] for _ in range(2)]
    body = {"first_id": ids[0], "second_id": ids[1], "choice": "second", "strength": 2}
    saved = client.post("/v1/comparisons", json=body, headers=headers)
    assert saved.status_code == 201
    assert (saved.json()["choice"], saved.json()["chosen_id"], saved.json()["strength"]) == (
        "prefer",
        ids[1],
        2,
    )
    again = client.post("/v1/comparisons", json=body, headers=headers)
    assert again.json() == saved.json(), "the same verdict again is the same judgement"
    changed = client.post("/v1/comparisons", json={**body, "choice": "both_bad"}, headers=headers)
    assert changed.json()["chosen_id"] is None
    with store.read() as cursor:
        assert cursor.execute("SELECT count(*) FROM judgements WHERE NOT undone").fetchone() == (1,)


def test_a_comparison_that_cannot_be_is_refused_with_a_sentence(
    client: TestClient, headers: dict[str, str], people: dict[str, Credentials]
) -> None:
    other = {"messages": [{"role": "user", "content": "Bye?"}]}
    one, two = (client.post(URL, json=asked, headers=headers).json()["id"] for asked in (HELLO, other))
    body = {"first_id": one, "second_id": two, "choice": "tie"}
    refused = client.post("/v1/comparisons", json=body, headers=headers)
    assert refused.status_code == 400
    assert "different messages" in refused.json()["error"]["message"]
    foreign = client.post("/v1/comparisons", json=body, headers=bearer(people["admin"]))
    assert foreign.status_code == 404
    for wrong in ({"choice": "left"}, {"strength": 3}, {"left_id": one}):
        assert client.post("/v1/comparisons", json={**body, **wrong}, headers=headers).status_code in (
            400,
            422,
        )


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_a_client_that_reads_one_line_and_no_more_is_let_go(
    services: Services,
    people: dict[str, Credentials],
    sample: ScriptedSample,
    monkeypatch: pytest.MonkeyPatch,
    spec_version: str,
) -> None:
    """Nothing ended its response, and the answer, its thread and its place lasted as long as the client."""
    monkeypatch.setattr(asking, "SEND_S", 0.05)
    sample.gate = threading.Event()  # it writes one word, and then no more until it is stopped

    async def never(*_: object) -> Any:
        await asyncio.Event().wait()

    async def take_the_head(message: Any) -> None:
        if message["type"] == "http.response.body":
            await never()

    async def stream() -> None:
        reader = asking.Reader([answer(services, people["tester"].person, "live", MESSAGES, Sampling())])
        events = (f"data: {number}\n\n" async for number in _count())
        response = asking.AnswerStream(reader, events, {})
        await response({"type": "http", "asgi": {"spec_version": spec_version}}, never, take_the_head)

    asyncio.run(asyncio.wait_for(stream(), 10))
    assert sample.stopped.wait(5)
    assert services.slots.wait_until_free(people["tester"].person.person_id, 5)


async def _count() -> AsyncIterator[int]:
    for number in range(1000):
        yield number
