"""Fills a store with people, tasks and judgements through the real events, thousands a decision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

from store.database import Store
from store.events import Event, new_event
from store.people import hash_password
from store.records import Role
from store.writer import Decision

AT = datetime(2026, 1, 1, tzinfo=UTC)
EVENTS_A_DECISION = 5000


def add_people(store: Store, number: int, role: Role = "annotator", first: int = 0) -> list[str]:
    """That many people in one write, numbered from `first`; returns their tokens, `token-0` and so on."""
    tokens = [f"token-{n}" for n in range(first, first + number)]
    password = hash_password("nobody signs in with it")
    save(
        store,
        (
            new_event(
                "person_added",
                AT,
                person_id=person_id(n),
                name=f"{role} {n}",
                name_key=f"{role} {n}",
                role=role,
                password_hash=password,
                token_sha256=hashlib.sha256(token.encode()).hexdigest(),
            )
            for n, token in enumerate(tokens, start=first)
        ),
    )
    return tokens


def add_tasks(store: Store, number: int, wanted: int, judged_by: int = 0, num_people: int = 0) -> None:
    """That many pairs, each with answers of its own and `judged_by` judgements of different people."""
    save(store, _prompts(number))
    save(store, _tasks(number, wanted))
    save(store, _judgements(number, judged_by, num_people))


def person_id(number: int) -> str:
    return f"u_{number:030x}"


def save(store: Store, events: Iterator[Event]) -> None:
    """Write the events, many a decision."""
    while chunk := list(islice(events, EVENTS_A_DECISION)):
        store.write(lambda _, chunk=chunk: Decision(None, chunk))


def _prompts(number: int) -> Iterator[Event]:
    for n in range(max(1, number // 10)):
        messages = [{"role": "user", "content": f"question {n}: why is the sky blue?"}]
        sha = hashlib.sha256(str(n).encode()).hexdigest()
        yield new_event(
            "prompt_added",
            AT,
            prompt_id=f"p_{n}",
            messages=messages,
            content_sha256=sha,
            source="bench",
            tags=[],
        )


def _tasks(number: int, wanted: int) -> Iterator[Event]:
    for n in range(number):
        messages = [{"role": "user", "content": f"question {n // 10}: why is the sky blue?"}]
        for side in "ab":
            yield new_event(
                "completion_saved",
                AT,
                completion_id=f"c_{n:029x}{side}",
                messages=messages,
                text=f"answer {side} to {n}: because blue light is scattered more than red light is",
                version="v0",
                temperature=1.0,
                top_p=1.0,
                max_tokens=64,
                seed=n,
                token_ids=list(range(20)),
                logprob_sum=-9.5,
                finish_reason="stop",
                num_prompt_tokens=9,
                prompt_id=f"p_{n // 10}",
                conversation_id=None,
                person_id=None,
            )
        yield new_event(
            "task_added",
            AT,
            task_id=f"t_{n:030x}",
            kind="pair",
            prompt_id=f"p_{n // 10}",
            first_id=f"c_{n:029x}a",
            second_id=f"c_{n:029x}b",
            version="v0",
            wanted=wanted,
            priority=(n * 7919 % 1000) / 1000,
        )


def _judgements(number: int, judged_by: int, num_people: int) -> Iterator[Event]:
    for n in range(number):
        for turn in range(judged_by):
            chosen = "ab"[(n + turn) % 2]
            yield new_event(
                "judgement_saved",
                AT,
                judgement_id=f"j_{n:028x}{turn:02x}",
                task_id=f"t_{n:030x}",
                person_id=person_id((n * 7 + turn * 13) % num_people),
                choice="prefer",
                chosen_id=f"c_{n:029x}{chosen}",
                rejected_id=f"c_{n:029x}{'ba'['ab'.index(chosen)]}",
                left_id=f"c_{n:029x}a",
                strength=1,
                reasons=[],
                comment="",
                correction=None,
                active_ms=2000,
            )
