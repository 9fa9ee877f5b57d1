"""Short ways to put people, prompts, answers and tasks into a store."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

from store.completions import save_completion
from store.database import Store
from store.events import new_event
from store.judgements import save_judgement
from store.people import add_person
from store.projection import hash_facts
from store.prompts import NewPrompt, add_prompts, read_prompt
from store.records import Completion, Judgement, Lease, Message, Person, Role, Sampling, Task, TaskKind
from store.tasks import add_task, lease_task
from store.writer import Decision

AT = datetime(2026, 3, 4, 5, 6, 7, 890_123, tzinfo=UTC)
_numbers = itertools.count(1)


def ask(text: str) -> tuple[Message, ...]:
    """A prompt of one user message."""
    return (Message(role="user", content=text),)


def answer(text: str = "Paris.", asked: str = "Capital of France?", **fields: object) -> Completion:
    """An answer that is not saved yet."""
    given = Completion("", ask(asked), text, "v0", Sampling(seed=7), (1, 2, 3), -1.25, "stop", 9, AT)
    return Completion(**{name: fields.get(name, getattr(given, name)) for name in Completion.__slots__})  # type: ignore[arg-type]


def person(store: Store, role: Role = "annotator") -> Person:
    """A new person; passwords cost scrypt time, so tests make few."""
    return add_person(store, f"person {next(_numbers)}", role, "long enough").person


def prompt(store: Store, text: str | None = None) -> str:
    """The id of a prompt, new unless the text is known."""
    asked = text if text is not None else f"question {next(_numbers)}"
    return add_prompts(store, [NewPrompt(ask(asked))], source="test").prompt_ids[0]


def task(
    store: Store, kind: TaskKind = "pair", wanted: int = 1, asked: str | None = None, version: str = "v0"
) -> Task:
    """A new task about a new prompt."""
    prompt_id = prompt(store, asked)
    messages = read_prompt(store, prompt_id).messages
    texts = ["first answer", "second answer"] if kind == "pair" else ["only answer"]
    completions = [answer(text, messages=messages, version=version) for text in texts]
    return add_task(store, kind, prompt_id, completions, wanted=wanted)


def many_tasks(store: Store, number: int) -> None:
    """That many pairs about one prompt, in one write."""
    prompt_id = prompt(store)

    tasks = [
        new_event(
            "task_added",
            AT,
            task_id=f"t_{n:08}",
            kind="pair",
            prompt_id=prompt_id,
            first_id=f"c_{n}a",
            second_id=f"c_{n}b",
            version="v0",
            wanted=1,
        )
        for n in range(number)
    ]
    store.write(lambda _: Decision(None, tasks))


def show_first(task: Task, _: str) -> str:
    """Draws no lot: the first completion goes left."""
    return task.completion_ids[0]


def lease(store: Store, person_id: str, kind: TaskKind = "pair", now: datetime | None = None) -> Lease:
    """The next task of that kind, which must exist."""
    held = lease_task(store, person_id, kind, show_first, now=now)
    assert held is not None
    return held


def prefer_first(store: Store, held: Lease) -> Judgement:
    """The first completion is slightly better."""
    chosen_id, rejected_id = held.task.completion_ids
    return save_judgement(
        store,
        held.task.task_id,
        held.person_id,
        choice="prefer",
        chosen_id=chosen_id,
        rejected_id=rejected_id,
        strength=1,
    )


def facts(store: Store) -> str:
    """A hash of every fact table."""
    with store.read() as cursor:
        return hash_facts(cursor)


def fill(store: Store) -> Person:
    """One of everything that leaves a trace in the journal."""
    from store import canaries, judgements, people, policies, ratings, rounds

    annotator = person(store)
    for kind in ("pair", "single"):
        for _ in range(2):
            task(store, kind, version="v0")
    prefer_first(store, lease(store, annotator.person_id))
    single = lease(store, annotator.person_id, "single")
    save_judgement(store, single.task.task_id, annotator.person_id, choice="up", correction="better")
    judgements.undo_last(store, annotator.person_id)
    spoken = save_completion(store, answer(conversation_id="cv_1", person_id=annotator.person_id))
    ratings.save_rating(store, spoken.completion_id, annotator.person_id, 1, reasons=["clear"])
    started = rounds.create_round(store, "by hand", "v0")
    rounds.advance_round(store, started.round_id, "training", version="v1", num_pairs=1)
    policies.add_policy(store, "v1", "v0", started.round_id, "ab" * 32)
    policies.promote(store, "v1", "admin", expected_live="v0")
    rounds.advance_round(store, started.round_id, "promoted", reason="all checks passed")
    policies.add_policy(store, "v2", "v1", None, None)
    canaries.start_canary(store, "v2", 0.1, "admin", "a first look")
    policies.mark_policy(store, "v2", "rejected", "too long")
    people.set_active(store, person(store).person_id, False, "admin")
    return annotator
