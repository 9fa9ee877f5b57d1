"""A data folder in which one person has left every kind of trace, and a search for them in every byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from store import people, policies, ratings, rounds, sessions
from store.completions import save_completion
from store.database import Store
from store.events import Event, new_event
from store.judgements import save_judgement, undo_last
from store.outside import add_outside_labels
from store.records import OutsideLabel, Person, Task
from store.snapshots import write_snapshot
from store.writer import Decision
from tests.store import samples

NAME = "Quirina Vandersloot"
PASSWORD = "unmistakable-password"
COMMENT = "unmistakable remark 7341"
CORRECTION = "unmistakable correction 9127"
CHAT = "unmistakable question 5567"
ANSWER = "unmistakable answer 5577"
REASON = "unmistakable reason 2298"


@dataclass(frozen=True)
class Filled:
    """Who is to be erased, who stays, the round trained on both and the texts nobody else could have left."""

    theirs: Person
    other: Person
    admin: Person
    round_id: str
    shared: Task
    secrets: tuple[str, ...]
    words: tuple[str, ...] = (COMMENT, CORRECTION, CHAT, ANSWER, REASON)

    @property
    def needles(self) -> tuple[str, ...]:
        """Everything that must be gone after they were deleted."""
        return (NAME, NAME.casefold(), self.theirs.person_id, *self.secrets, *self.words)


def fill(store: Store) -> Filled:
    """Work of two annotators and an admin; one of them is also an admin, a tester, and chats."""
    theirs = people.add_person(store, NAME, "admin", PASSWORD).person
    other, admin = samples.person(store), samples.person(store, "admin")
    shared = samples.task(store, wanted=2, asked="what both judge")
    for person in (theirs, other):
        judge(store, samples.lease(store, person.person_id).task, person, comment=words(person, COMMENT))
    alone = samples.task(store, asked="what one corrects")
    judge(store, samples.lease(store, theirs.person_id).task, theirs, correction=CORRECTION)
    samples.task(store, "single", asked="what one takes back")
    single = samples.lease(store, theirs.person_id, "single").task
    save_judgement(store, single.task_id, theirs.person_id, choice="up", comment=COMMENT)
    undo_last(store, theirs.person_id)
    _chat(store, theirs)
    _chat(store, other)
    _write(store, *_other_acts(store, theirs, admin, shared, alone))
    people.set_active(store, samples.person(store).person_id, False, NAME)
    people.set_trained_on(store, other.person_id, True, NAME, REASON)
    people.set_trained_on(store, theirs.person_id, False, admin.name, f"{NAME} was too fast")
    people.set_trained_on(store, theirs.person_id, True, admin.name)
    label = OutsideLabel("", "rating", "import:x", samples.ask("x"), "y", samples.AT, desirable=True)
    fields = {"annotator": NAME, "extra": {"who": NAME}}
    add_outside_labels(store, [replace(label, **fields), replace(label, annotator="w7")])
    sessions.open_session(store, theirs.person_id)
    return Filled(theirs, other, admin, train(store, "v1", theirs), shared, _secrets(store, theirs))


def words(person: Person, text: str) -> str:
    """The unmistakable text for them, another one for anybody else."""
    return text if person.name == NAME else "a remark of somebody else"


def judge(store: Store, task: Task, person: Person, **more: str) -> None:
    chosen_id, rejected_id = task.completion_ids
    pair = {"chosen_id": chosen_id, "rejected_id": rejected_id}
    save_judgement(store, task.task_id, person.person_id, choice="prefer", strength=1, **pair, **more)  # type: ignore[arg-type]


def train(store: Store, version: str, by: Person) -> str:
    """A round as the supervisor leaves it: a snapshot, its papers, a version that is live, and no process."""
    started = rounds.create_round(store, f"by hand: {by.name}", policies.live_version(store))
    folder = store.data_dir / "rounds" / started.round_id
    report = write_snapshot(store, folder / "snapshot", holdout_share=0.3)
    (folder / "round.json").write_text(f'{{"trainer": {{"start": "fresh"}}, "without": ["{by.person_id}"]}}')
    (folder / "log.txt").write_text("pairs: row j_1 was cut\n")
    rounds.advance_round(store, started.round_id, "training", version=version, snapshot_seq=report.seq)
    policies.add_policy(store, version, started.parent, started.round_id, "ab" * 32)
    policies.promote(store, version, by.name, reason=REASON, expected_live=started.parent)
    rounds.advance_round(store, started.round_id, "promoted", reason=f"cancelled by {by.name}")
    return started.round_id


def search(root: Path, needles: Iterable[str]) -> list[tuple[str, str]]:
    """Every (needle, file) where the needle lies in a file below `root` or in its name, byte for byte."""
    return [
        (needle, str(path.relative_to(root)))
        for path in sorted(root.rglob("*"))
        for needle in needles
        if needle in path.name or (path.is_file() and needle.encode() in _bytes(path))
    ]


def _bytes(path: Path) -> bytes:
    """The file's bytes, and what a Parquet file holds once it is unpacked."""
    raw = path.read_bytes()
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        raw += str(pq.read_table(path).to_pylist()).encode()
    return raw


def _chat(store: Store, person: Person) -> None:
    """An answer to them, a retry, a thumb with a correction, and which of the two they liked better."""
    asked = words(person, CHAT)
    conversation = {"conversation_id": f"cv_{person.person_id[-6:]}", "person_id": person.person_id}
    said = samples.answer(words(person, ANSWER), asked, **conversation)
    first, second = save_completion(store, said), save_completion(store, said)
    remarks = {"comment": words(person, COMMENT), "correction": words(person, CORRECTION)}
    ratings.save_rating(store, first.completion_id, person.person_id, -1, **remarks)  # type: ignore[arg-type]
    ids = {"first_id": first.completion_id, "second_id": second.completion_id}
    task_id = f"t_chat_{person.person_id[-6:]}"
    asks = {"kind": "pair", "version": "v0", "wanted": 1, "purpose": "chat", "prompt_id": "chat_1"}
    judged = {"task_id": task_id, "person_id": person.person_id, "judgement_id": f"j{task_id}"}
    act: dict[str, object] = {"choice": "tie", "chosen_id": None, "rejected_id": None, "left_id": None}
    rest = {"strength": 0, "comment": remarks["comment"], "correction": None, "active_ms": 1, "reasons": []}
    _write(
        store,
        new_event("task_added", samples.AT, task_id=task_id, **asks, **ids),
        new_event("judgement_saved", samples.AT, **judged, **act, **rest),
        new_event("tasks_retired", samples.AT, task_ids=[task_id], version_kept="v9"),
    )


def _other_acts(store: Store, theirs: Person, admin: Person, shared: Task, alone: Task) -> Iterator[Event]:
    def event(type_: str, **fields: object) -> Event:
        return new_event(type_, samples.AT, **fields)

    verdict: dict[str, object] = {"choice": "tie", "chosen_id": None, "rejected_id": None, "strength": 0}
    for number, (task, person) in enumerate(((alone, theirs), (shared, admin))):
        by = {"adjudication_id": f"a_{number}", "person_id": person.person_id, "task_id": task.task_id}
        yield event("adjudicated", **by, **verdict, comment=words(person, COMMENT))
    answer = {"choice": "tie", "chosen_id": None}
    yield event("gold_set", task_id=alone.task_id, source="adjudicated", **answer)
    yield event("gold_set", task_id=shared.task_id, source=NAME, **answer)
    yield event("gold_dropped", task_id=shared.task_id, actor=NAME)
    yield event("guidelines_set", version=1, text="Be fair.", actor=NAME)
    yield event("guidelines_accepted", person_id=theirs.person_id, version=1)
    yield event("guidelines_accepted", person_id=admin.person_id, version=1)
    canary = {"canary_id": "ca_1", "version": "v9", "live": "v0", "share": 0.1}
    yield event("canary_started", **canary, actor=NAME, reason=REASON)
    yield event(
        "canary_ended", canary_id="ca_1", outcome="stopped", actor=NAME, reason=REASON, numbers={"live_up": 1}
    )
    prompt_id = samples.prompt(store)
    again = {"first_id": "c_x", "second_id": "c_y", "prompt_id": prompt_id, "kind": "pair", "version": "v0"}
    repeat = {"purpose": "repeat", "repeat_of": shared.task_id, "only_for": theirs.person_id, "wanted": 1}
    yield event("task_added", task_id="t_repeat", **again, **repeat)


def _write(store: Store, *events: Event) -> None:
    store.write(lambda _: Decision(None, events))


def _secrets(store: Store, person: Person) -> tuple[str, ...]:
    with store.read() as cursor:
        sql = "SELECT password_hash, token_sha256 FROM people WHERE person_id = ?"
        row = cursor.execute(sql, [person.person_id]).fetchone()
    assert row is not None
    return (*row,)
