"""The client people use, unchanged, against a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from annotate.services import Services
from annotate.web import build_api
from store.completions import read_completion
from store.database import Store
from store.people import Credentials
from tests.annotate.conftest import bearer
from tests.fakes import ScriptedSample
from tests.served import serve

MESSAGES: Any = [{"role": "user", "content": "Hello?"}]
URL = "/v1/chat/completions"


@pytest.fixture
def server(services: Services) -> Iterator[str]:
    with serve(build_api(services)) as url:
        yield url


@pytest.fixture
def client(server: str, people: dict[str, Credentials]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key=people["tester"].token, max_retries=0) as opened:
        yield opened


def test_models_are_listed_and_looked_up(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["live", "base", "v0"]
    assert client.models.retrieve("base").object == "model"
    with pytest.raises(openai.NotFoundError, match="model 'v99' is not loaded; loaded: live, base, v0"):
        client.models.retrieve("v99")


def test_an_answer_comes_whole_or_in_pieces(client: openai.OpenAI, store: Store) -> None:
    whole = client.chat.completions.create(model="live", messages=MESSAGES)
    assert whole.choices[0].message.content == "Hello, world."
    assert whole.usage is not None
    assert whole.usage.total_tokens == 11
    stream = client.chat.completions.create(
        model="base", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    *pieces, counts = stream
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert (text, pieces[-1].choices[0].finish_reason) == ("Hello, world.", "stop")
    assert counts.usage is not None
    assert (counts.choices, counts.usage.completion_tokens) == ([], 4)
    (completion_id,) = {piece.id for piece in (*pieces, counts)}
    assert read_completion(store, completion_id).text == text


def test_options_reach_the_engine_and_are_kept(
    client: openai.OpenAI, store: Store, sample: ScriptedSample
) -> None:
    answered = client.chat.completions.create(
        model="live", messages=MESSAGES, temperature=0.3, top_p=0.4, max_tokens=9, seed=5, stop=["\n", "End"]
    )
    sampling = read_completion(store, answered.id).sampling
    assert sampling == sample.asked[0][2]
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.3, 0.4, 9)
    assert (sampling.seed, sampling.stop) == (5, ("\n", "End"))
    client.chat.completions.create(model="live", messages=MESSAGES, max_completion_tokens=8, stop="End")
    assert (sample.asked[1][2].max_tokens, sample.asked[1][2].stop) == (8, ("End",))


def test_what_openai_takes_is_taken(client: openai.OpenAI, sample: ScriptedSample) -> None:
    """Each of these got 422 here once: a developer's message, an explicit null, a seed below 0."""
    create: Any = client.chat.completions.create
    told = [{"role": "developer", "content": "Be short."}, {**MESSAGES[0], "name": "ada"}]
    answered = create(model="live", messages=told, seed=-1, extra_body={"stream": None})
    assert sample.asked[0][1][0] == {"role": "system", "content": "Be short."}
    assert sample.asked[0][2].seed == 2**63 - 1
    said = answered.choices[0].message  # as people send a conversation on
    create(model="live", messages=[*told, said, *MESSAGES], seed=2**64 + 5)
    assert sample.asked[1][2].seed == 5


def test_what_a_message_holds_and_nobody_reads_is_refused_by_name(client: openai.OpenAI) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said: Any = {"role": "assistant", "content": "", "tool_calls": [call]}
    with pytest.raises(openai.BadRequestError, match="message 2: not supported here: tool_calls; leave it"):
        client.chat.completions.create(model="live", messages=[*MESSAGES, said, *MESSAGES])


def test_two_choices_are_two_completions_that_can_be_rated_apart(
    client: openai.OpenAI, server: str, store: Store, sample: ScriptedSample, people: dict[str, Credentials]
) -> None:
    answered = client.chat.completions.create(model="live", messages=MESSAGES, n=2, seed=7)
    assert [choice.index for choice in answered.choices] == [0, 1]
    assert [asked[2].seed for asked in sample.asked] == [7, 8], (
        "the same seed would give the same answer twice"
    )
    assert answered.usage is not None
    assert (answered.usage.prompt_tokens, answered.usage.completion_tokens) == (7, 8)
    extra: Any = answered.model_extra
    ids = extra["heed"]["completion_ids"]
    assert ids == [choice.model_extra["heed"]["completion_id"] for choice in answered.choices]  # type: ignore[index]
    assert answered.id == ids[0]
    assert [read_completion(store, each).sampling.seed for each in ids] == [7, 8]
    for completion_id, rating in zip(ids, (1, -1), strict=True):
        body = {"completion_id": completion_id, "rating": rating}
        assert httpx.post(f"{server}/v1/feedback", json=body, headers=bearer(people["tester"])).is_success


def test_two_choices_stream_side_by_side(client: openai.OpenAI, store: Store) -> None:
    stream = client.chat.completions.create(model="live", messages=MESSAGES, n=2, stream=True)
    texts, ids, reasons = ["", ""], ["", ""], {}
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            extra: Any = choice.model_extra or {}
            ids[choice.index] = extra.get("heed", {}).get("completion_id", ids[choice.index])
            reasons[choice.index] = choice.finish_reason
    assert texts == ["Hello, world."] * 2
    assert reasons == {0: "stop", 1: "stop"}
    assert len(set(ids)) == 2
    assert [read_completion(store, each).text for each in ids] == texts


def test_logprobs_have_the_shape_openai_gives(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="live", messages=MESSAGES, logprobs=True, top_logprobs=3)
    assert whole.choices[0].logprobs is not None
    content = whole.choices[0].logprobs.content or []
    assert [token.token for token in content] == ["Hello", ", ", "world", "."]
    assert (content[0].logprob, bytes(content[0].bytes or [])) == (-1.5, b"Hello")
    top = content[0].top_logprobs
    assert [(likely.token, likely.logprob) for likely in top[:2]] == [("Hello", -1.5), ("é", -2.5)]
    assert bytes(top[1].bytes or []) == "é".encode()
    assert (top[2].logprob, top[2].bytes) == (-9999.0, None), "half a character has no bytes of its own"
    stream = client.chat.completions.create(model="live", messages=MESSAGES, logprobs=True, stream=True)
    streamed = [
        token
        for chunk in stream
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content or []
    ]
    assert [token.token for token in streamed] == [token.token for token in content]
    assert [token.top_logprobs for token in streamed] == [[]] * 4


def test_errors_are_the_clients_own(client: openai.OpenAI, server: str, sample: ScriptedSample) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="policy 'v99' is unknown"):
        create(model="v99", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="not supported here: tools") as refused:
        create(model="live", messages=MESSAGES, tools=[])
    assert (refused.value.type, refused.value.param, refused.value.code) == ("bad_value", None, None)
    with pytest.raises(openai.UnprocessableEntityError) as invalid:
        create(model="live", messages=MESSAGES, temperature=-1)
    assert invalid.value.param == "temperature"
    with (
        openai.OpenAI(base_url=f"{server}/v1", api_key="nobody", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()
    sample.at_most = len(sample.asked)
    with pytest.raises(openai.InternalServerError, match="try again shortly") as busy:
        create(model="live", messages=MESSAGES)
    assert busy.value.status_code == 503
    assert int(busy.value.response.headers["retry-after"]) >= 1


def test_a_third_question_at_once_is_told_when_to_come_back(
    client: openai.OpenAI, sample: ScriptedSample
) -> None:
    sample.gate = threading.Event()
    streams = [
        iter(client.chat.completions.create(model="live", messages=MESSAGES, stream=True)) for _ in range(2)
    ]
    for stream in streams:
        assert next(stream).choices[0].delta.content == "Hello", "a word arrives before the next is written"
    with pytest.raises(openai.RateLimitError, match="2 answers to you") as refused:
        client.chat.completions.create(model="live", messages=MESSAGES)
    assert int(refused.value.response.headers["retry-after"]) >= 1
    sample.gate.set()
    for stream in streams:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == ", world."


def test_waiting_is_told_in_comments_that_clients_ignore(
    client: openai.OpenAI, server: str, sample: ScriptedSample, people: dict[str, Credentials]
) -> None:
    sample.places, sample.turn = (3,), threading.Event()
    threading.Timer(0.3, sample.turn.set).start()
    stream = client.chat.completions.create(model="live", messages=MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello, world."
    sample.turn = threading.Event()
    body = {"messages": MESSAGES, "stream": True}
    with httpx.stream("POST", f"{server}{URL}", json=body, headers=bearer(people["tester"])) as reply:
        lines = reply.iter_lines()
        assert next(lines) == ": place 3"
        sample.turn.set()
        assert [line for line in lines if line][-1] == "data: [DONE]"


def test_an_answer_somebody_else_stopped_is_an_error_the_client_knows(
    client: openai.OpenAI, sample: ScriptedSample
) -> None:
    """`cancelled` is no finish reason of OpenAI's: the client must never see it."""
    sample.gate = threading.Event()
    stream = iter(client.chat.completions.create(model="live", messages=MESSAGES, stream=True))
    next(stream)
    sample.stop_all()
    with pytest.raises(openai.APIError, match="stopped before it was finished"):
        list(stream)
    asking = threading.Timer(0.3, sample.stop_all)
    asking.start()
    with pytest.raises(openai.InternalServerError, match="stopped before it was finished"):
        client.chat.completions.create(model="live", messages=MESSAGES)


def test_what_was_left_out_is_told_in_the_body_and_in_a_header(
    client: openai.OpenAI, sample: ScriptedSample
) -> None:
    sample.num_left_out = 3
    raw = client.chat.completions.with_raw_response.create(model="live", messages=MESSAGES)
    assert raw.headers["x-left-out-messages"] == "3"
    extra: Any = raw.parse().model_extra
    assert extra["heed"]["num_left_out"] == 3
    *_, end = client.chat.completions.create(model="live", messages=MESSAGES, stream=True)
    told: Any = end.choices[0].model_extra
    assert told["heed"]["num_left_out"] == 3


def test_a_client_that_goes_away_stops_the_engine_and_leaves_the_text(
    server: str, store: Store, sample: ScriptedSample, people: dict[str, Credentials]
) -> None:
    sample.pieces = ("Hello", *[" word"] * 100_000)
    headers = bearer(people["tester"])
    body = {"messages": MESSAGES, "stream": True, "max_tokens": 4000}
    with httpx.stream("POST", f"{server}{URL}", json=body, headers=headers) as reply:
        event = next(line for line in reply.iter_lines() if line.startswith("data: "))
        completion_id = httpx.Response(200, text=event.removeprefix("data: ")).json()["id"]
    assert sample.stopped.wait(5)
    kept = finished(store, completion_id)
    assert kept.finish_reason == "cancelled"
    assert kept.text.startswith("Hello")
    rated = httpx.post(
        f"{server}/v1/feedback", json={"completion_id": completion_id, "rating": 1}, headers=headers
    )
    assert rated.status_code == 400


def test_a_client_that_does_not_wait_for_the_whole_answer_stops_it_too(
    server: str, sample: ScriptedSample, people: dict[str, Credentials]
) -> None:
    sample.turn = threading.Event()  # nothing at all comes from the engine
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server}{URL}", json={"messages": MESSAGES}, headers=bearer(people["tester"]), timeout=0.5
        )
    assert sample.stopped.wait(5)


def finished(store: Store, completion_id: str) -> Any:
    """The completion, saved a moment after the engine was stopped."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with store.read() as cursor:
            sql = "SELECT 1 FROM completions WHERE completion_id = ?"
            if cursor.execute(sql, [completion_id]).fetchone():
                return read_completion(store, completion_id)
        time.sleep(0.01)
    raise AssertionError(f"{completion_id} was not saved within 5 s")
