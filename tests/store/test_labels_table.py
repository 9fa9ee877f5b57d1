"""The table of docs/labels.md, each row played against a real store: it must say what the code does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from store.adjudications import save_adjudication
from store.completions import save_completion
from store.database import Store
from store.events import new_event
from store.judgements import save_judgement, undo_last
from store.labels import build_rows
from store.outside import add_outside_labels
from store.people import set_trained_on
from store.ratings import save_rating
from store.records import Lease, OutsideLabel, Task
from store.training_rows import TrainingRows
from store.writer import Decision
from tests.store import samples

DOCS = (Path(__file__).parents[2] / "docs" / "labels.md").read_text("utf-8")


def held_pair(store: Store) -> Lease:
    samples.task(store)
    return samples.lease(store, samples.person(store).person_id)


def prefer(store: Store, strength: int = 2, held: Lease | None = None, **act: object) -> Task:
    held = held or held_pair(store)
    chosen, rejected = held.task.completion_ids
    act = {"choice": "prefer", "chosen_id": chosen, "rejected_id": rejected, "strength": strength} | act
    save_judgement(store, held.task.task_id, held.person_id, **act)  # type: ignore[arg-type]
    return held.task


def say(store: Store, choice: str) -> None:
    held = held_pair(store)
    save_judgement(store, held.task.task_id, held.person_id, choice=choice)  # type: ignore[arg-type]


def flag(store: Store, which: int) -> None:
    held = held_pair(store)
    prefer(store, held=held, unsafe_ids=[held.task.completion_ids[which]])


def thumb(store: Store, *values: int) -> None:
    completion = save_completion(store, samples.answer(conversation_id="cv_1")).completion_id
    person = samples.person(store, "tester").person_id
    for value in values:
        save_rating(store, completion, person, value)  # type: ignore[arg-type]


def compare_in_chat(store: Store) -> None:
    chat_task(store, "chat")


def repeat(store: Store) -> None:
    chat_task(store, "repeat")


def chat_task(store: Store, purpose: str) -> None:
    """A task of that purpose, made as its event says, judged once."""
    ids = [
        save_completion(store, samples.answer(text, conversation_id="cv_1")).completion_id for text in "ab"
    ]
    person = samples.person(store).person_id
    fields = {"task_id": "t_made", "kind": "pair", "prompt_id": "", "first_id": ids[0], "second_id": ids[1]}
    added = new_event("task_added", samples.AT, **fields, version="v0", wanted=1, purpose=purpose)
    judged = judgement_event("t_made", person, *ids)
    store.write(lambda _: Decision(None, [added, judged]))


def judgement_event(task_id: str, person_id: str, chosen_id: str, rejected_id: str) -> dict[str, object]:
    return new_event(
        "judgement_saved", samples.AT, judgement_id=f"j_{task_id}_{person_id}", task_id=task_id,
        person_id=person_id, choice="prefer", chosen_id=chosen_id, rejected_id=rejected_id, left_id=chosen_id,
        strength=2, reasons=[], comment="", correction=None, active_ms=None,
    )  # fmt: skip


def retry(store: Store) -> None:
    for text in ("first try", "second try"):
        save_completion(store, samples.answer(text, conversation_id="cv_1"))


def undo(store: Store) -> None:
    held = held_pair(store)
    prefer(store, held=held)
    undo_last(store, held.person_id)


def gold(store: Store) -> None:
    task = prefer(store)
    fields = {
        "task_id": task.task_id,
        "choice": "prefer",
        "chosen_id": task.completion_ids[0],
        "source": "test",
    }
    store.write(lambda _: Decision(None, [new_event("gold_set", samples.AT, **fields)]))


def adjudicate(store: Store, *, taken_back: bool = False) -> None:
    task, admin = prefer(store), samples.person(store, "admin").person_id
    second, first = task.completion_ids[::-1]
    save_adjudication(
        store, task.task_id, admin, choice="prefer", chosen_id=second, rejected_id=first, strength=2
    )
    if taken_back:
        save_adjudication(store, task.task_id, admin, choice="skip")


def add_outside(store: Store, source: str, **fields: object) -> None:
    given: dict[str, object] = {"kind": "pair", "chosen": "good", "rejected": "bad"} | fields
    label = OutsideLabel("", source=source, messages=samples.ask("outside?"), created_at=samples.AT, **given)  # type: ignore[arg-type]
    add_outside_labels(store, [label])


def judge_label(store: Store, task: Task, *, agrees: bool) -> None:
    chosen, rejected = ("first answer", "second answer") if agrees else ("second answer", "first answer")
    add_outside(store, "judge:test", chosen=chosen, rejected=rejected, task_id=task.task_id)


def measured_judge(store: Store, *, agreement: float) -> None:
    """A judge and people on 20 gold tasks, and one label of the judge where nobody has judged."""
    person = samples.person(store).person_id
    for n in range(20):
        samples.task(store)
        held = samples.lease(store, person)
        first, second = held.task.completion_ids
        chosen, rejected = (first, second) if n % 2 else (second, first)
        act = {"choice": "prefer", "chosen_id": chosen, "rejected_id": rejected, "strength": 2}
        save_judgement(store, held.task.task_id, person, **act)  # type: ignore[arg-type]
        fields = {"task_id": held.task.task_id, "choice": "prefer", "chosen_id": chosen, "source": "test"}
        store.write(lambda _, fields=fields: Decision(None, [new_event("gold_set", samples.AT, **fields)]))  # type: ignore[misc]
        judge_label(store, held.task, agrees=(n % 2 == 1) == (n < 20 * agreement))
    judge_label(store, samples.task(store), agrees=True)


def judge_and_person(store: Store) -> None:
    task = prefer(store)
    judge_label(store, task, agrees=False)


def leave_out(store: Store) -> None:
    held = held_pair(store)
    prefer(store, held=held)
    set_trained_on(store, held.person_id, False, "admin")


ACTS: dict[str, Callable[[Store], object]] = {
    "prefer, slightly (strength 1)": lambda store: prefer(store, 1),
    "prefer (strength 2)": lambda store: prefer(store, 2),
    "prefer, much (strength 3)": lambda store: prefer(store, 3),
    "tie": lambda store: say(store, "tie"),
    "both bad": lambda store: say(store, "both_bad"),
    "skip": lambda store: say(store, "skip"),
    "unsafe flag on the rejected answer": lambda store: flag(store, 1),
    "unsafe flag on the chosen answer": lambda store: flag(store, 0),
    "reasons and comment": lambda store: prefer(store, reasons=["clear"], comment="well said"),
    "correction of the better answer": lambda store: prefer(store, correction="a far better answer"),
    "correction of spaces and punctuation": lambda store: prefer(store, correction="First  answer!"),
    "thumb up": lambda store: thumb(store, 1),
    "thumb down": lambda store: thumb(store, -1),
    "thumb taken back": lambda store: thumb(store, 1, 0),
    "comparison in a chat": compare_in_chat,
    "retry without a vote": retry,
    "judgement undone": undo,
    "gold task": gold,
    "repeat": repeat,
    "adjudication": adjudicate,
    "adjudication taken back": lambda store: adjudicate(store, taken_back=True),
    "imported pair": lambda store: add_outside(store, "import:test"),
    "imported rating": lambda store: add_outside(
        store, "import:test", kind="rating", rejected=None, desirable=True
    ),
    "AI judge, never compared with people": lambda store: add_outside(store, "judge:test"),
    "AI judge that agrees with people": lambda store: measured_judge(store, agreement=0.9),
    "AI judge that disagrees with people": lambda store: measured_judge(store, agreement=0.5),
    "AI judge on a task people judged": judge_and_person,
    "synthetic pair": lambda store: add_outside(store, "synthetic:test"),
    "label of a person left out of training": leave_out,
}


def read_table() -> dict[str, list[str]]:
    lines = [line for line in DOCS.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells if row[0] not in ("Act", "---")}


TABLE = read_table()


def rows_of(store: Store) -> TrainingRows:
    with store.read() as cursor:
        return build_rows(cursor)


def test_the_table_has_every_act_and_no_other() -> None:
    assert set(TABLE) == set(ACTS)


@pytest.mark.parametrize("act", ACTS)
def test_an_act_means_what_the_table_says(store: Store, act: str) -> None:
    pairs, ratings, weight, source, _ = TABLE[act]
    ACTS[act](store)
    rows = rows_of(store)
    assert len(rows.pairs) == int(pairs)
    number, _, kind = ratings.partition(" ")
    assert len(rows.ratings) == int(number)
    assert {row.desirable for row in rows.ratings} == ({kind == "desirable"} if kind else set())
    both = [*rows.pairs, *rows.ratings]
    assert {row.weight for row in both} == ({float(weight)} if weight else set())
    assert {row.source for row in both} == set(filter(None, source.split(", ")))
    assert len({row.row_id for row in both}) == len(both)
    assert all(row.probability == 1.0 for row in rows.pairs)
