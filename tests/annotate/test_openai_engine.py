"""OpenAI's client against the whole service: the starter answers in this process, nothing is scripted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from annotate.web import build_api
from building import build_service
from settings import ServeSettings
from store.people import add_person
from tests.served import serve

HELLO: Any = [{"role": "user", "content": "Hello?"}]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    data = tmp_path_factory.mktemp("openai-engine")
    service = build_service(ServeSettings.read(["--data", str(data), "--threads", "1"], "serve"))
    tester = add_person(service.parts.store, "tess", "tester")
    with (
        serve(build_api(service.services)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key=tester.token, max_retries=0) as opened,
    ):
        yield opened
    service.close()


def test_the_client_and_the_engine_agree_on_every_option(client: openai.OpenAI) -> None:
    create: Any = client.chat.completions.create
    asked = {"model": "live", "messages": HELLO, "max_tokens": 12, "seed": -7}
    whole = create(**asked, n=2, logprobs=True, top_logprobs=2)
    texts = [choice.message.content for choice in whole.choices]
    assert create(**asked, n=2).choices[0].message.content == texts[0], "the same seed gives the same answer"
    tokens = [choice.logprobs.content for choice in whole.choices]
    assert whole.usage.completion_tokens == sum(
        choice.model_extra["heed"]["num_tokens"] for choice in whole.choices
    )
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for each in tokens for token in each)
    *pieces, counts = create(**asked, n=2, stream=True, stream_options={"include_usage": True})
    streamed = ["", ""]
    for choice in (choice for piece in pieces for choice in piece.choices):
        streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts
    assert counts.usage == whole.usage
    middle = texts[0][len(texts[0]) // 2 :][:3]
    stopped = create(**asked, stop=middle).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (texts[0].partition(middle)[0], "stop")
