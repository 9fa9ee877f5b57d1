"""What thumbs, reasons, edits and comparisons come to, and that none of them forges another."""

from __future__ import annotations

import threading

import pytest

from annotate.chat import answer, answer_all
from annotate.feedback import ComparedAs, compare, edit_answer, explain_thumb, rate, set_thumb
from annotate.services import Services
from annotate.writing import Answer, follow
from store.completions import new_conversation_id, read_conversation
from store.database import Store
from store.errors import BadValue, NotFound
from store.labels import TrainingRows, build_rows
from store.people import Credentials
from store.ratings import read_rating
from store.records import Message, Person, Sampling
from tests.annotate.asking import finish, read_first_words, stop
from tests.fakes import ScriptedSample

HELLO: list[Message] = [{"role": "user", "content": "Hello?"}]
SAMPLING = Sampling(temperature=0.5, top_p=0.9, max_tokens=40, seed=11)


@pytest.fixture
def tester(people: dict[str, Credentials]) -> Person:
    return people["tester"].person


def ask(services: Services, person: Person) -> Answer:
    return finish(answer(services, person, "live", HELLO, SAMPLING))


def rows(store: Store) -> TrainingRows:
    with store.read() as cursor:
        return build_rows(cursor)


def two_answers(services: Services, person: Person) -> tuple[str, str]:
    writings = answer_all(services, person, "live", HELLO, (Sampling(seed=1), Sampling(seed=2)))
    one, other = list(follow(writings))[-1]
    return one.completion_id, other.completion_id


def test_the_last_thumb_counts_and_zero_takes_it_back(
    services: Services, store: Store, tester: Person
) -> None:
    conversation_id = new_conversation_id()
    last = finish(answer(services, tester, "live", HELLO, SAMPLING, conversation_id))

    def thumb() -> int:
        return read_conversation(store, conversation_id, tester.person_id)[0].rating

    up = rate(services, tester, last.completion_id, 1, reasons=["clear"])
    assert rate(services, tester, last.completion_id, 1, reasons=["clear"]) == up
    assert thumb() == 1
    rate(services, tester, last.completion_id, -1)
    assert thumb() == -1
    rate(services, tester, last.completion_id, 0)
    assert thumb() == 0


def test_an_unfinished_answer_cannot_be_rated(
    services: Services, sample: ScriptedSample, tester: Person
) -> None:
    sample.gate = threading.Event()
    writing = answer(services, tester, "live", HELLO, SAMPLING)
    first = read_first_words(writing)
    with pytest.raises(BadValue, match="still being written"):
        rate(services, tester, first.completion_id, 1)
    stop(writing)
    with pytest.raises(BadValue, match="stopped before its end"):
        rate(services, tester, first.completion_id, 1)


def test_nobody_rates_an_answer_to_somebody_else(
    services: Services, people: dict[str, Credentials], tester: Person
) -> None:
    last = ask(services, tester)
    for who, completion_id in ((people["admin"].person, last.completion_id), (tester, "c_unknown")):
        with pytest.raises(NotFound):
            rate(services, who, completion_id, 1)


@pytest.mark.parametrize("value", [2, -2, True, False])
def test_a_thumb_is_one_of_three_numbers(services: Services, tester: Person, value: int) -> None:
    with pytest.raises(BadValue, match="is not 1, -1 or 0"):
        rate(services, tester, ask(services, tester).completion_id, value)


def test_switching_the_thumb_drops_what_was_said_of_the_other(
    services: Services, store: Store, tester: Person
) -> None:
    completion_id = ask(services, tester).completion_id
    set_thumb(services, tester, completion_id, -1)
    explained = explain_thumb(services, tester, completion_id, ["Incorrect"], "no")
    assert (explained.value, explained.reasons, explained.comment) == (-1, ("Incorrect",), "no")
    assert set_thumb(services, tester, completion_id, -1) == explained, "the same thumb keeps its reasons"
    switched = set_thumb(services, tester, completion_id, 1)
    assert (switched.reasons, switched.comment) == ((), "")
    assert [row.desirable for row in rows(store).ratings] == [True]


def test_reasons_without_a_thumb_are_refused(services: Services, store: Store, tester: Person) -> None:
    completion_id = ask(services, tester).completion_id
    set_thumb(services, tester, completion_id, -1)
    set_thumb(services, tester, completion_id, 0)
    with pytest.raises(BadValue, match="rate the answer first"):
        explain_thumb(services, tester, completion_id, ["Incorrect"], "")
    assert rows(store).ratings == []


def test_an_edit_is_a_pair_and_no_thumb(services: Services, store: Store, tester: Person) -> None:
    completion_id = ask(services, tester).completion_id
    saved = edit_answer(services, tester, completion_id, "Goodbye.")
    assert saved is not None
    assert saved.value == 0
    learned = rows(store)
    assert [(pair.chosen, pair.rejected) for pair in learned.pairs] == [("Goodbye.", "Hello, world.")]
    assert learned.ratings == []


def test_a_thumb_and_an_edit_stand_side_by_side(services: Services, store: Store, tester: Person) -> None:
    completion_id = ask(services, tester).completion_id
    set_thumb(services, tester, completion_id, -1)
    explain_thumb(services, tester, completion_id, ["Incorrect"], "no")
    edit_answer(services, tester, completion_id, "Goodbye.")
    set_thumb(services, tester, completion_id, 1)
    learned = rows(store)
    assert [row.desirable for row in learned.ratings] == [True]
    assert [pair.chosen for pair in learned.pairs] == ["Goodbye."]
    edit_answer(services, tester, completion_id, "Farewell.")
    set_thumb(services, tester, completion_id, 0)
    learned = rows(store)
    assert (learned.ratings, [pair.chosen for pair in learned.pairs]) == ([], ["Farewell."])


def test_the_answers_own_text_takes_an_edit_back(services: Services, store: Store, tester: Person) -> None:
    completion_id = ask(services, tester).completion_id
    assert edit_answer(services, tester, completion_id, "Hello, world.") is None
    assert read_rating(store, completion_id, tester.person_id) is None
    edit_answer(services, tester, completion_id, "Goodbye.")
    edit_answer(services, tester, completion_id, "Hello, world.")
    assert rows(store).pairs == []
    with pytest.raises(BadValue, match="the edited answer is empty"):
        edit_answer(services, tester, completion_id, " \n")


def test_a_stopped_answer_is_neither_rated_nor_edited_nor_compared(
    services: Services, sample: ScriptedSample, tester: Person
) -> None:
    sample.gate = threading.Event()
    writing = answer(services, tester, "live", HELLO, SAMPLING)
    stopped = read_first_words(writing).completion_id
    stop(writing)
    sample.gate.set()
    finished = ask(services, tester).completion_id
    for act in (
        lambda: set_thumb(services, tester, stopped, 1),
        lambda: edit_answer(services, tester, stopped, "Goodbye."),
        lambda: compare(services, tester, finished, stopped, "tie"),
    ):
        with pytest.raises(BadValue, match="stopped before its end"):
            act()


@pytest.mark.parametrize(("choice", "chosen"), [("first", 0), ("second", 1)])
def test_the_better_of_two_is_chosen_with_its_strength(
    services: Services, tester: Person, choice: ComparedAs, chosen: int
) -> None:
    ids = two_answers(services, tester)
    saved = compare(services, tester, *ids, choice, strength=2, reasons=["Too long"])
    assert (saved.choice, saved.chosen_id, saved.rejected_id) == ("prefer", ids[chosen], ids[1 - chosen])
    assert (saved.strength, saved.reasons) == (2, ("Too long",))


def test_a_strength_is_slightly_or_much(services: Services, tester: Person) -> None:
    ids = two_answers(services, tester)
    with pytest.raises(BadValue, match="strength 3 is not 1"):
        compare(services, tester, *ids, "first", strength=3)
    assert compare(services, tester, *ids, "both_bad", strength=3).strength == 0
