"""The quality page's numbers, on people whose habits are known, and how fast they come."""

from __future__ import annotations

import random

import pytest

from store.database import Store
from store.events import Event, new_event
from store.judgements import save_judgement
from store.outside import add_outside_labels
from store.people import add_person
from store.quality import PersonQuality, read_quality
from store.records import OutsideLabel
from store.writer import Decision
from tests.store import samples

WORDS = 20  # of both answers of a task together


def write(store: Store, events: list[Event]) -> None:
    store.write(lambda _: Decision(None, events))


def person_event(person_id: str) -> Event:
    fields = {"name": person_id, "name_key": person_id, "role": "annotator"}
    return new_event(
        "person_added", samples.AT, person_id=person_id, **fields, password_hash="-", token_sha256=person_id
    )


def task_events(task_id: str, **fields: object) -> list[Event]:
    drawn = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 9, "seed": 0, "logprob_sum": -1.0}
    rest = {"finish_reason": "stop", "num_prompt_tokens": 1, "prompt_id": "p", "conversation_id": None}
    text = " ".join(["word"] * (WORDS // 2))
    origin = str(fields.get("repeat_of") or task_id)
    answers = [
        new_event(
            "completion_saved", samples.AT, completion_id=f"{task_id}{side}", messages=list(samples.ask("q")),
            text=f"{text}{side}", version="v0", token_ids=[1], person_id=None, **drawn, **rest,
        )
        for side in "ab" if origin == task_id
    ]  # fmt: skip
    sides = {"first_id": f"{origin}a", "second_id": f"{origin}b"}
    purpose = {"purpose": "repeat"} if "repeat_of" in fields else {}
    added = new_event(
        "task_added", samples.AT, task_id=task_id, kind="pair", prompt_id="p", version="v0", wanted=1,
        **sides, **purpose, **fields,
    )  # fmt: skip
    return [*answers, added]


def act(
    task_id: str, person_id: str, first: bool, *, left_first: bool, ms: int = 5000, of: str = ""
) -> Event:
    both = [f"{of or task_id}a", f"{of or task_id}b"]
    chosen, rejected = both if first else both[::-1]
    return new_event(
        "judgement_saved", samples.AT, judgement_id=f"j {task_id} {person_id}", task_id=task_id,
        person_id=person_id, choice="prefer", chosen_id=chosen, rejected_id=rejected,
        left_id=both[0] if left_first else both[1], strength=2, reasons=[], comment="", correction=None,
        active_ms=ms,
    )  # fmt: skip


def judge_alone(store: Store, count: int, *, always_left: bool = False, ms: int = 5000) -> PersonQuality:
    rng = random.Random(1)
    events = [person_event("ann")]
    for n in range(count):
        left_first = rng.random() < 0.5
        first = left_first if always_left else rng.random() < 0.5
        events += [*task_events(f"t{n}"), act(f"t{n}", "ann", first, left_first=left_first, ms=ms)]
    write(store, events)
    [found] = read_quality(store).people
    return found


def test_a_store_without_judgements_says_why_there_is_nothing(store: Store) -> None:
    quality = read_quality(store)
    assert (quality.people, quality.num_judged) == ((), 0)
    assert quality.alpha.why == "undefined: no task has been judged by two people yet"
    assert quality.left.value is None


def test_an_always_left_annotator_is_flagged_within_40_judgements(store: Store) -> None:
    found = judge_alone(store, 40, always_left=True)
    assert found.left.value == 1.0
    assert any(flag.startswith("one side: 100% of 40 choices were the left one") for flag in found.flags)


def test_a_balanced_annotator_has_no_flag(store: Store) -> None:
    found = judge_alone(store, 200)
    assert found.flags == ()
    assert found.left.low is not None
    assert found.left.high is not None
    assert found.left.low < 0.5 < found.left.high


def test_someone_faster_than_reading_is_flagged_with_the_numbers(store: Store) -> None:
    found = judge_alone(store, 30, ms=WORDS * 10)
    assert found.ms_per_word == pytest.approx(10)
    assert found.median_ms == 200
    assert found.flags == ("too fast: 30 of 30 answers under 40 ms a word",)


def test_the_same_answer_again_and_again_is_flagged_as_straight_lining(store: Store) -> None:
    rng = random.Random(2)
    events = [person_event("ann")]
    for n in range(60):
        events += task_events(f"t{n}")
        judged = act(f"t{n}", "ann", rng.random() < 0.5, left_first=rng.random() < 0.5)
        tie = {"choice": "tie", "chosen_id": None, "rejected_id": None, "strength": 0}
        events.append(judged | tie if n < 25 else judged)
    write(store, events)
    assert read_quality(store).people[0].flags == ("straight-lining: the same answer 25 times in a row",)


def test_gold_and_repeats_are_measured_and_counted_apart(store: Store) -> None:
    events = [person_event("ann")]
    for n in range(20):
        right, same = n < 8, n < 6
        events += [*task_events(f"g{n}"), act(f"g{n}", "ann", right, left_first=n % 2 == 0)]
        gold = {"task_id": f"g{n}", "choice": "prefer", "chosen_id": f"g{n}a", "source": "test"}
        events.append(new_event("gold_set", samples.AT, **gold))
        events += [*task_events(f"t{n}"), act(f"t{n}", "ann", True, left_first=n % 2 == 0)]
        events += task_events(f"r{n}", repeat_of=f"t{n}", only_for="ann")
        events.append(act(f"r{n}", "ann", same, left_first=n % 2 == 1, of=f"t{n}"))
    write(store, events)
    quality = read_quality(store)
    [found] = quality.people
    assert (found.gold.value, found.gold.n) == (0.4, 20)
    assert (found.consistency.value, found.consistency.n) == (0.3, 20)
    assert (found.num_judgements, quality.num_judged, quality.num_shared) == (60, 40, 0)
    assert "gold: right in 40% of 20" in found.flags
    assert "inconsistent: repeats themselves in 30% of 20 repeats" in found.flags


def test_agreement_is_with_the_others_on_shared_tasks(store: Store) -> None:
    events = [person_event(name) for name in ("a", "b", "c")]
    for n in range(4):
        events += task_events(f"t{n}")
        events += [act(f"t{n}", name, name != "c" or n < 1, left_first=True) for name in "abc"]
    events += [*task_events("alone"), act("alone", "a", True, left_first=True)]
    write(store, events)
    quality = read_quality(store)
    values = {person.name: (person.agreement.value, person.agreement.n) for person in quality.people}
    assert values == {"a": (0.625, 4), "b": (0.625, 4), "c": (0.25, 4)}
    assert (quality.num_judged, quality.num_shared) == (5, 4)
    assert quality.alpha.n == 4


def test_nothing_is_computed_twice_until_something_is_written(store: Store) -> None:
    judge_alone(store, 3)
    first = read_quality(store)
    assert read_quality(store) is first
    add_person(store, "someone", "annotator", "long enough")
    assert read_quality(store) is not first


def test_an_undone_judgement_and_a_skip_leave_the_numbers(store: Store) -> None:
    ann = samples.person(store)
    samples.task(store)
    held = samples.lease(store, ann.person_id)
    save_judgement(store, held.task.task_id, ann.person_id, choice="skip")
    samples.task(store)
    judged = samples.prefer_first(store, samples.lease(store, ann.person_id))
    undone = {"judgement_id": judged.judgement_id, "task_id": judged.task_id, "person_id": ann.person_id}
    write(store, [new_event("judgement_undone", samples.AT, **undone, choice="prefer")])
    [found] = read_quality(store).people
    assert (found.num_judgements, found.num_skips, found.left.value) == (0, 1, None)


def test_a_judges_kappa_with_people_is_shown(store: Store) -> None:
    events, labels = [person_event("ann")], []
    for n in range(10):
        people_first, judge_first = n % 2 == 0, (n % 2 == 0) != (n == 0)
        events += [*task_events(f"t{n}"), act(f"t{n}", "ann", people_first, left_first=True)]
        text = " ".join(["word"] * (WORDS // 2))
        chosen, rejected = (f"{text}a", f"{text}b") if judge_first else (f"{text}b", f"{text}a")
        labels.append(
            OutsideLabel(
                "", "pair", "judge:test", samples.ask("q"), chosen, samples.AT, rejected, task_id=f"t{n}"
            )
        )
    write(store, events)
    add_outside_labels(store, labels)
    kappa = read_quality(store).judges["judge:test"]
    assert kappa.n == 10
    assert kappa.value == pytest.approx(0.8)
