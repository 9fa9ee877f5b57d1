"""A web process without the pages, over a real store in memory, with one person of each role."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from fastapi.testclient import TestClient

from annotate.services import Services
from annotate.web import build_api
from store import people as store_people
from store.clock import utc
from store.completions import new_completion_id
from store.database import Store
from store.people import Credentials, add_person
from store.prompts import NewPrompt, add_prompts
from store.records import Completion, Role, Sampling, Task, TaskKind
from store.tasks import add_task
from tests.fakes import ScriptedSample, make_services

BASE_URL = "http://127.0.0.1:7860"
OWN = {"sec-fetch-site": "same-origin"}
ROLES: tuple[Role, ...] = ("annotator", "tester", "admin")


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scrypt at its real cost would be most of the time these tests take."""
    monkeypatch.setattr(store_people, "_SCRYPT_N", 2)


@pytest.fixture
def store() -> Iterator[Store]:
    opened = Store.in_memory()
    yield opened
    opened.close()


@pytest.fixture
def sample() -> ScriptedSample:
    return ScriptedSample()


@pytest.fixture
def services(store: Store, sample: ScriptedSample) -> Services:
    return make_services(store, sample)


@pytest.fixture
def people(store: Store) -> dict[str, Credentials]:
    """One person of each role, called after it, with the password `<role>-password`."""
    return {role: add_person(store, role, role, f"{role}-password") for role in ROLES}


@pytest.fixture
def client(services: Services) -> Iterator[TestClient]:
    with open_client(services) as opened:
        yield opened


def open_client(services: Services, **options: bool) -> TestClient:
    return TestClient(build_api(services), base_url=BASE_URL, follow_redirects=False, **options)


def bearer(credentials: Credentials) -> dict[str, str]:
    return {"authorization": f"Bearer {credentials.token}"}


def sign_in(client: TestClient, role: str) -> None:
    reply = client.post("/login", data={"name": role, "password": f"{role}-password"})
    assert reply.status_code == 303, reply.text


@dataclass
class TaskMaker:
    """Adds tasks whose texts tell which completion they are."""

    store: Store
    made: int = 0

    def add(self, kind: TaskKind = "pair", wanted: int = 1, version: str = "v0") -> Task:
        self.made += 1
        prompt = NewPrompt(messages=({"role": "user", "content": f"question {self.made}"},), tags=())
        prompt_id = add_prompts(self.store, [prompt], "test").prompt_ids[0]
        texts = ("first answer", "second answer") if kind == "pair" else ("only answer",)
        completions = [self._completion(text, prompt, prompt_id, version) for text in texts]
        return add_task(self.store, kind, prompt_id, completions, wanted)

    def _completion(self, text: str, prompt: NewPrompt, prompt_id: str, version: str) -> Completion:
        return Completion(
            completion_id=new_completion_id(),
            messages=tuple(prompt.messages),
            text=text,
            version=version,
            sampling=Sampling(seed=self.made),
            token_ids=(1, 2, 3),
            logprob_sum=-3.0,
            finish_reason="stop",
            num_prompt_tokens=4,
            created_at=utc(),
            prompt_id=prompt_id,
        )


@pytest.fixture
def tasks(store: Store) -> TaskMaker:
    return TaskMaker(store)
