"""Thumbs in a chat and corrections are believed as their giver's pairs are, several thumbs as one label."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from store.effective import QualitySettings
from store.events import Event, new_event, to_json
from store.journal import MemoryJournal
from store.labels import build_rows
from store.projection import Projection
from store.training_rows import TrainingRows
from tests.store import samples

AT, NUM_GOLD = samples.AT, 60


def rows_of(*events: Event) -> TrainingRows:
    """The rows of a store of which these events are all that happened."""
    journal = MemoryJournal()
    journal.append([to_json(event).encode() for event in (new_event("store_created", AT), *events)])
    with contextlib.closing(Projection(None, journal)) as tables, tables.read() as cursor:
        return build_rows(cursor)


def completion(completion_id: str, text: str = "an answer") -> Event:
    return new_event(
        "completion_saved", AT, completion_id=completion_id, messages=list(samples.ask("why?")), text=text,
        version="v0", token_ids=[1, 2], finish_reason="stop", num_prompt_tokens=1, temperature=1.0, top_p=1.0,
        max_tokens=9, seed=0, logprob_sum=-1.0, prompt_id=None, conversation_id="cv_1", person_id=None,
        num_left_out=0,
    )  # fmt: skip


def pair_task(task_id: str) -> list[Event]:
    ids = {"first_id": f"{task_id}a", "second_id": f"{task_id}b"}
    added = new_event(
        "task_added", AT, task_id=task_id, kind="pair", prompt_id="", **ids, version="v0", wanted=9,
        purpose="label",
    )  # fmt: skip
    return [completion(f"{task_id}a", "this one"), completion(f"{task_id}b", "that one"), added]


def judged(task_id: str, person_id: str, is_right: bool = True, correction: str | None = None) -> Event:
    chosen, rejected = (f"{task_id}a", f"{task_id}b") if is_right else (f"{task_id}b", f"{task_id}a")
    return new_event(
        "judgement_saved", AT, judgement_id=f"j {task_id} {person_id}", task_id=task_id, person_id=person_id,
        choice="prefer", chosen_id=chosen, rejected_id=rejected, left_id=chosen, strength=2, reasons=[],
        comment="", correction=correction, active_ms=None, unsafe_ids=[],
    )  # fmt: skip


def measured(person_id: str, share_right: float) -> Iterator[Event]:
    """Gold tasks that say how often this person is right."""
    for number in range(NUM_GOLD):
        task_id = f"gold {person_id} {number}"
        yield from pair_task(task_id)
        fields = {"task_id": task_id, "choice": "prefer", "chosen_id": f"{task_id}a", "source": "test"}
        yield new_event("gold_set", AT, **fields)
        yield judged(task_id, person_id, is_right=number < share_right * NUM_GOLD)


def thumb(person_id: str, value: int, correction: str | None = None, about: str = "c1") -> Event:
    return new_event(
        "rating_saved", AT, rating_id=f"r {about} {person_id}", completion_id=about, person_id=person_id,
        value=value, reasons=[], comment="", correction=correction,
    )  # fmt: skip


def test_opposite_thumbs_on_one_chat_answer_are_undecided() -> None:
    """They were once a desirable and an undesirable row of the same tokens."""
    rows = rows_of(completion("c1"), thumb("ann", 1), thumb("bob", -1))
    assert rows.ratings == []
    assert rows.reasons["undecided"] == 1
    assert rows.ledger.labels == {"r c1 ann": "undecided", "r c1 bob": "undecided"}


def test_thumbs_of_several_people_on_one_chat_answer_are_one_row() -> None:
    (row,) = rows_of(completion("c1"), thumb("ann", 1), thumb("bob", 1), thumb("eve", 0)).ratings
    assert (row.desirable, row.weight) == (True, 1.0)
    assert (row.row_id, row.label_ids) == ("r c1 ann", ("r c1 ann", "r c1 bob"))
    assert row.person_ids == ("ann", "bob")


def test_a_thumb_of_somebody_measured_weighs_what_they_are_worth() -> None:
    (row,) = rows_of(completion("c1"), thumb("ann", 1), *measured("ann", 0.6)).ratings
    assert row.desirable
    assert 0.1 < row.weight < 0.6
    (good,) = rows_of(completion("c1"), thumb("ann", 1), *measured("ann", 1.0)).ratings
    assert good.weight == 1.0


def test_a_correction_of_somebody_measured_weighs_and_doubts_as_their_pairs_do() -> None:
    edit = "something else altogether"
    rows = rows_of(*measured("ann", 0.75), *pair_task("t1"), judged("t1", "ann", correction=edit))
    pair, corrected = sorted(rows.pairs, key=lambda row: row.source != "human")
    assert corrected.source == "edit"
    assert 0.6 < corrected.probability < 0.85
    accuracy = rows.reliability.accuracy("ann")
    assert accuracy == corrected.probability
    assert corrected.weight == (2 * accuracy - 1) / QualitySettings().full_trust
    assert 0 < pair.weight < 1


def test_a_correction_of_somebody_no_better_than_a_guess_teaches_nothing() -> None:
    """It once had its whole weight, from a person who is right three times in ten."""
    edit = "something else altogether"
    both = judged("t1", "ann", correction=edit), thumb("ann", 1, correction=edit)
    rows = rows_of(completion("c1"), *measured("ann", 0.15), *pair_task("t1"), *both)
    assert not [row for row in rows.pairs if row.source == "edit"]
    assert rows.ledger.corrections == {"j t1 ann": "undecided", "r c1 ann": "undecided"}


def test_the_one_thumb_and_the_one_edit_of_somebody_unchecked_stand_as_they_are() -> None:
    rows = rows_of(completion("c1"), thumb("ann", -1, correction="something else"))
    (rating,), (pair,) = rows.ratings, rows.pairs
    assert (rating.row_id, rating.desirable, rating.weight) == ("r c1 ann", False, 1.0)
    assert (pair.row_id, pair.weight, pair.probability) == ("r c1 ann:edit0", 1.0, 1.0)
