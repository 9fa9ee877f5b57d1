"""Eight clients stream over HTTP while five versions are promoted in turn: nothing fails or is mixed."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from serving.adapters import publish
from settings import STARTER
from store.database import Store
from store.policies import add_policy
from tests.running import RunningService
from tests.serving.conftest import write_adapter

CLIENTS = 8
VERSIONS = ("v1", "v2", "v3", "v4", "v5")
ANSWERS_A_VERSION = 24
MAX_TOKENS = 40
PROMPTS = (
    "What is the capital of France?",
    "How do I boil an egg?",
    "Hello there, how are you today?",
    "What is 3 plus 4?",
    "Why is the sky blue?",
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    """A service that has five candidates waiting, each visibly different from the base."""
    data = tmp_path / "data"
    store = Store.open(data)
    for number, version in enumerate(VERSIONS):
        draft = write_adapter(tmp_path / f"draft-{version}", STARTER, seed=number)
        sha256 = publish(draft, data / "policies", version)
        add_policy(store, version, parent="v0", round_id=None, weights_sha256=sha256)
    store.close()
    running = RunningService(data, ("--max-wait-hours", "0", "--min-new-labels", "100000")).start()
    yield running
    running.stop()


@dataclass
class Answers:
    """What the clients got, in the order in which they got it."""

    failures: list[str] = field(default_factory=list)
    given: list[tuple[str, str, str]] = field(default_factory=list)  # version, prompt, text
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def add(self, version: str, prompt: str, text: str) -> None:
        with self.arrived:
            self.given.append((version, prompt, text))
            self.arrived.notify_all()

    def wait_for(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.given) >= count or self.failures, timeout=120)


def stream(client: httpx.Client, prompt: str) -> tuple[str, str]:
    """One greedy streamed answer: the version in its header and the text of its chunks."""
    body = {
        "model": "live",
        "stream": True,
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": prompt}],
    }
    with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.status_code == httpx.codes.OK, reply.read()
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert not [chunk for chunk in chunks if "error" in chunk], chunks[-1]
    assert {chunk["model"] for chunk in chunks} == {reply.headers["x-policy-version"]}
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    return reply.headers["x-policy-version"], text


def chat_until(
    stop: threading.Event, service: RunningService, token: str, first: int, answers: Answers
) -> None:
    with service.client(token) as client:
        for prompt in itertools.islice(itertools.cycle(PROMPTS), first, None):
            if stop.is_set():
                return
            try:
                version, text = stream(client, prompt)
            except (AssertionError, httpx.HTTPError) as error:
                answers.failures.append(repr(error))
                return
            answers.add(version, prompt, text)


def own_answer(model: Any, tokenizer: Any, prompt: str) -> str:
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        out = model.generate(**ids, do_sample=False, max_new_tokens=MAX_TOKENS)
    return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


def read_own_answers(policies: Path) -> dict[tuple[str, str], str]:
    """What each version's own `generate` says, freshly loaded by the library alone."""
    tokenizer = AutoTokenizer.from_pretrained(STARTER)
    expected = {}
    for version in ("v0", *VERSIONS):
        model = AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32)
        if version != "v0":
            model = PeftModel.from_pretrained(model, policies / version)
        for prompt in PROMPTS:
            expected[version, prompt] = own_answer(model.eval(), tokenizer, prompt)
    return expected


@pytest.mark.slow  # tests/serving/test_policies.py swaps under load in seconds
def test_no_answer_fails_or_mixes_versions_while_five_are_promoted(service: RunningService) -> None:
    answers, stop = Answers(), threading.Event()
    with service.client() as admin:
        tokens = [
            admin.post("/v1/people", json={"name": f"tester {n}", "role": "tester"}).json()["token"]
            for n in range(CLIENTS)
        ]
        chats = [
            threading.Thread(target=chat_until, args=(stop, service, token, n, answers))
            for n, token in enumerate(tokens)
        ]
        for chat in chats:
            chat.start()
        for number, version in enumerate(VERSIONS, start=1):
            answers.wait_for(number * ANSWERS_A_VERSION)
            reply = admin.post(f"/v1/policies/{version}/promote", json={"reason": "the test goes on"})
            assert reply.status_code == httpx.codes.OK, reply.text
        answers.wait_for((len(VERSIONS) + 1) * ANSWERS_A_VERSION)
        stop.set()
        for chat in chats:
            chat.join()

    assert not answers.failures
    expected = read_own_answers(service.data / "policies")
    wrong = [(v, p, text, expected[v, p]) for v, p, text in answers.given if text != expected[v, p]]
    assert not wrong, f"{len(wrong)} of {len(answers.given)} answers are not their version's own: {wrong[:2]}"
    assert {version for version, _, _ in answers.given} == {"v0", *VERSIONS}
    assert len({expected[version, PROMPTS[0]] for version in VERSIONS}) > 1, "the versions must differ"
