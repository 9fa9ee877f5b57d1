"""Random labels of every kind as events: what people may do in any order, with all that undoes it later."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from store.events import Event, new_event
from tests.store.samples import AT

PEOPLE = ("ann", "bob", "eve", "root")
WORDS = ("one two", "one two three", "One, two!", "four", "a quite different answer")
QUESTIONS = ("what is it?", "What is  it", "who are you", "why", "tell me more")


def random_events(rng: Random, num_tasks: int = 8) -> list[Event]:
    """People, tasks and everything said about them; ids are numbered, so equal numbers give equal events."""
    events = [_person(name) for name in PEOPLE]
    for number in range(num_tasks):
        events += _task(rng, number)
    for number in range(rng.randint(0, 6)):
        events += _thumbs(rng, number)
    events += [_outside(rng, number) for number in range(rng.randint(0, 4))]
    if rng.random() < 0.3:
        left_out = {"person_id": rng.choice(PEOPLE), "trained_on": False, "actor": "root"}
        events.append(new_event("person_trained_on_set", AT, **left_out))
    return events


def _person(name: str) -> Event:
    secrets = {"password_hash": "scrypt$1$1$1$00$00", "token_sha256": name}
    return new_event(
        "person_added", AT, person_id=name, name=name, name_key=name, role="annotator", **secrets
    )


def _completion(rng: Random, completion_id: str, asked: str, conversation: str | None) -> Event:
    messages = [{"role": "user", "content": asked}]
    if conversation and rng.random() < 0.5:
        messages += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "go on"}]
    return new_event(
        "completion_saved",
        AT,
        completion_id=completion_id,
        messages=messages,
        text=rng.choice(WORDS),
        version=rng.choice(["v0", "v1"]),
        token_ids=[1, 2],
        finish_reason="stop",
        num_prompt_tokens=1,
        temperature=1.0,
        top_p=1.0,
        max_tokens=9,
        seed=0,
        logprob_sum=-1.0,
        prompt_id=None if conversation else f"pr {asked}",
        conversation_id=conversation,
        person_id=None,
        num_left_out=0,
    )


def _task(rng: Random, number: int) -> Iterator[Event]:
    kind = rng.choice(["pair", "pair", "single"])
    asked, conversation = rng.choice(QUESTIONS), rng.choice([None, None, "cv_1", "cv_2"])
    ids = [f"c{number}{side}" for side in ("ab" if kind == "pair" else "a")]
    yield from (_completion(rng, completion_id, asked, conversation) for completion_id in ids)
    about = {"kind": kind, "prompt_id": "p", "first_id": ids[0], "second_id": ids[1] if ids[1:] else None}
    purpose = rng.choice(["label", "label", "label", "repeat"])
    task_id = f"t{number}"
    yield new_event("task_added", AT, task_id=task_id, **about, version="v0", wanted=9, purpose=purpose)
    for person in rng.sample(PEOPLE, rng.randint(0, 3)):
        for again in range(rng.choice([1, 1, 1, 2])):
            yield from _judgement(rng, task_id, person, again, ids)
    for again in range(rng.choice([0, 0, 0, 1, 2])):
        verdict = _choose(rng, ids)
        strength = 2 if verdict["choice"] == "prefer" else 0
        given = {"adjudication_id": f"a{number} {again}", "task_id": task_id, "person_id": "root"}
        yield new_event("adjudicated", AT, **given, **verdict, strength=strength, comment="")
    if rng.random() < 0.15:
        known = _choose(rng, ids, "skip")
        about_gold = {"choice": known["choice"], "chosen_id": known["chosen_id"], "source": "test"}
        yield new_event("gold_set", AT, task_id=task_id, **about_gold)


def _choose(rng: Random, ids: list[str], *forbidden: str) -> dict[str, object]:
    pair, single = ["prefer", "prefer", "prefer", "tie", "both_bad", "skip"], ["up", "down", "skip"]
    choice = rng.choice([c for c in (pair if ids[1:] else single) if c not in forbidden])
    both = rng.sample(ids, 2) if choice == "prefer" else [None, None]
    return {"choice": choice, "chosen_id": both[0], "rejected_id": both[1]}


def _judgement(rng: Random, task_id: str, person: str, again: int, ids: list[str]) -> Iterator[Event]:
    """A person judges a task a second time only after taking the first time back."""
    verdict, judgement_id = _choose(rng, ids), f"j {task_id} {person} {again}"
    said = {"judgement_id": judgement_id, "task_id": task_id, "person_id": person}
    details = {
        "left_id": ids[0],
        "strength": rng.randint(1, 3) if verdict["choice"] == "prefer" else 0,
        "reasons": [],
        "comment": "",
        "correction": rng.choice([None, None, *WORDS]),
        "active_ms": None,
        "unsafe_ids": rng.sample(ids, 1) if rng.random() < 0.15 else [],
    }
    yield new_event("judgement_saved", AT, **said, **verdict, **details)
    if again == 0 and rng.random() < 0.3:
        yield new_event("judgement_undone", AT, **said, choice=verdict["choice"], counts=True)


def _thumbs(rng: Random, number: int) -> Iterator[Event]:
    completion_id = f"chat{number}"
    yield _completion(rng, completion_id, rng.choice(QUESTIONS), rng.choice(["cv_2", "cv_3"]))
    for again in range(rng.randint(1, 3)):
        person = rng.choice(["bob", *PEOPLE])
        given = {"rating_id": f"r{number} {again}", "completion_id": completion_id, "person_id": person}
        correction = rng.choice([None, *WORDS])
        value = rng.choice([-1, 0, 1])
        yield new_event(
            "rating_saved", AT, **given, value=value, reasons=[], comment="", correction=correction
        )


def _outside(rng: Random, number: int) -> Event:
    is_pair = rng.random() < 0.6
    return new_event(
        "outside_label_added",
        AT,
        label_id=f"o{number}",
        content_sha256=f"{number:064}",
        kind="pair" if is_pair else "rating",
        source=rng.choice(["import:x", "judge:x", "synthetic:x"]),
        annotator="",
        messages=[{"role": "user", "content": rng.choice(QUESTIONS)}],
        chosen="good",
        rejected="bad" if is_pair else None,
        desirable=None if is_pair else True,
        strength=1,
        weight=rng.choice([1.0, 0.0]),
        task_id=rng.choice([None, "t0"]),
        split=rng.choice([None, "holdout"]),
        extra={},
    )
