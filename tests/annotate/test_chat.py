"""What is kept of an answer, and who may ask."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest

from annotate.chat import answer, answer_all
from annotate.errors import TooManyRequests
from annotate.services import Services
from annotate.writing import Answer, Writing, follow
from store.completions import new_conversation_id, read_completion, read_conversation
from store.database import Store
from store.errors import BadValue, Busy, NotFound
from store.people import Credentials
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


def test_the_answer_grows_and_keeps_its_id(
    services: Services, sample: ScriptedSample, tester: Person
) -> None:
    sample.gate = threading.Event()
    answers = follow([answer(services, tester, "live", HELLO, SAMPLING)])
    seen = [next(grown for (grown,) in answers if grown.text)]
    assert (seen[0].text, seen[0].finish_reason) == ("Hello", None)
    sample.gate.set()
    seen += [grown for (grown,) in answers]
    assert all(later.text.startswith(earlier.text) for earlier, later in pairwise(seen))
    assert (seen[-1].text, seen[-1].finish_reason) == ("Hello, world.", "stop")
    assert len({grown.completion_id for grown in seen}) == 1


def test_everything_about_the_answer_is_kept(
    services: Services, store: Store, sample: ScriptedSample, tester: Person
) -> None:
    conversation_id = new_conversation_id()
    sample.num_left_out = 2
    last = finish(answer(services, tester, "live", HELLO, SAMPLING, conversation_id))
    kept = read_completion(store, last.completion_id)
    assert kept == last.completion
    assert (kept.text, kept.version, kept.finish_reason) == ("Hello, world.", "v0", "stop")
    assert (kept.token_ids, kept.logprob_sum, kept.num_prompt_tokens) == ((10, 11, 12, 13), -6.0, 7)
    assert (kept.sampling, kept.messages, kept.person_id) == (SAMPLING, tuple(HELLO), tester.person_id)
    assert kept.num_left_out == 2
    assert [turn.completion for turn in read_conversation(store, conversation_id, tester.person_id)] == [kept]


def test_an_answer_nobody_waits_for_is_kept_as_cancelled(
    services: Services, store: Store, sample: ScriptedSample, tester: Person
) -> None:
    sample.gate = threading.Event()
    writing = answer(services, tester, "live", HELLO, SAMPLING)
    seen = read_first_words(writing)
    stop(writing)
    kept = read_completion(store, seen.completion_id)
    assert (kept.text, kept.finish_reason, kept.token_ids) == ("Hello", "cancelled", (10,))
    assert sample.stopped.is_set()
    sample.gate.set()
    assert ask(services, tester).finish_reason == "stop"


def test_leaving_while_it_waits_keeps_nothing_and_frees_the_place(
    services: Services, store: Store, sample: ScriptedSample, tester: Person
) -> None:
    sample.turn, sample.places = threading.Event(), (3, 2)
    answers = follow([answer(services, tester, "live", HELLO, SAMPLING)])
    assert next(grown.place for (grown,) in answers if grown.place) in (3, 2)
    answers.close()
    assert services.slots.wait_until_free(tester.person_id, 20)
    with store.read() as cursor:
        assert cursor.execute("SELECT count(*) FROM completions").fetchone() == (0,)
    sample.turn.set()
    assert ask(services, tester).finish_reason == "stop"


def test_a_broken_engine_leaves_the_text_so_far(
    services: Services, store: Store, sample: ScriptedSample, tester: Person
) -> None:
    sample.breaks_after = 2
    writing = answer(services, tester, "live", HELLO, SAMPLING)
    with pytest.raises(RuntimeError, match="the engine broke"):
        finish(writing)
    kept = read_completion(store, writing.completion_id)
    assert (kept.text, kept.finish_reason, kept.token_ids) == ("Hello, ", "cancelled", ())
    sample.breaks_after = None
    assert ask(services, tester).finish_reason == "stop"


def test_an_answer_stopped_by_nobody_here_is_told_when_nothing_of_it_was_written(
    services: Services, sample: ScriptedSample, tester: Person
) -> None:
    sample.turn = threading.Event()
    writing = answer(services, tester, "live", HELLO, SAMPLING)
    answers = follow([writing])
    next(answers)
    writing.close()  # as the engine does when it is closed
    with pytest.raises(Busy, match="stopped before it was finished"):
        list(answers)


def test_one_person_has_as_many_answers_in_flight_as_are_let(
    services: Services, people: dict[str, Credentials], sample: ScriptedSample, tester: Person
) -> None:
    sample.gate = threading.Event()

    def ask_beside(most: int, person: Person = tester) -> list[Writing]:
        samplings = (SAMPLING, SAMPLING)  # two answers to one question
        return answer_all(services, person, "live", HELLO, samplings, most_in_flight=most)

    writings = ask_beside(1)  # nothing else is in flight, and they count from now on
    with pytest.raises(TooManyRequests, match="2 answers to you are still being written, of 1"):
        ask_beside(1)
    with pytest.raises(TooManyRequests, match="of 3 at once"):
        ask_beside(3)
    writings += ask_beside(4)
    with pytest.raises(TooManyRequests, match="4 answers to you") as refused:
        ask_beside(4)
    assert refused.value.retry_after_s >= 1
    writings += ask_beside(1, people["admin"].person)
    stop(*writings)
    sample.gate.set()
    assert ask(services, tester).finish_reason == "stop"


def test_many_requests_of_one_person_leave_the_engine_room_for_the_next(
    services: Services, people: dict[str, Credentials], sample: ScriptedSample, tester: Person
) -> None:
    """Two questions with eight answers each were let in as two, and a third person's as two more."""
    sample.gate, sample.at_most = threading.Event(), 12
    eight = [SAMPLING] * 8
    writings = answer_all(services, tester, "live", HELLO, eight, most_in_flight=2)
    for _ in range(20):
        with pytest.raises(TooManyRequests):
            answer_all(services, tester, "live", HELLO, eight, most_in_flight=2)
    bob = answer_all(services, people["admin"].person, "live", HELLO, [SAMPLING], most_in_flight=2)
    begun = next(grown for (grown,) in follow(bob) if grown.text)
    assert (begun.text, begun.place) == ("Hello", None)
    stop(*writings, *bob)


def test_an_unknown_policy_does_not_block_the_next_question(services: Services, tester: Person) -> None:
    with pytest.raises(NotFound, match="policy 'v99' is unknown"):
        answer(services, tester, "v99", HELLO, SAMPLING)
    assert ask(services, tester).finish_reason == "stop"


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "must end with one from the user"),
        ([{"role": "assistant", "content": "a"}], "must end with one from the user"),
        ([{"role": "user", "content": " \n"}], "the last message is empty"),
        ([{"role": "user", "content": "a\x1b[2J"}], "message 1: character 2 is U\\+001B"),
        ([{"role": "user", "content": "a" * 32_001}], "message 1 has 32001 characters; at most 32000"),
    ],
)
def test_messages_that_cannot_be_answered_are_refused_at_once(
    services: Services, sample: ScriptedSample, tester: Person, messages: list[Message], words: str
) -> None:
    with pytest.raises(BadValue, match=words):
        answer(services, tester, "live", messages, SAMPLING)
    assert not sample.asked


def test_two_answers_are_written_side_by_side_with_a_seed_each(
    services: Services, store: Store, sample: ScriptedSample, tester: Person
) -> None:
    samplings = (Sampling(seed=1), Sampling(seed=2))
    sample.gate = threading.Event()
    pairs = follow(answer_all(services, tester, "live", HELLO, samplings, "cv_1"))
    begun = next(pair for pair in pairs if pair[0].text and pair[1].text)
    assert [grown.finish_reason for grown in begun] == [None, None], "both begin before one is finished"
    sample.gate.set()
    ended = list(pairs)[-1]
    assert [grown.finish_reason for grown in ended] == ["stop", "stop"]
    assert [asked[2].seed for asked in sample.asked] == [1, 2]
    kept = [turn.completion for turn in read_conversation(store, "cv_1", tester.person_id)]
    assert {c.completion_id for c in kept} == {grown.completion_id for grown in ended}
    assert ask(services, tester).finish_reason == "stop"


def test_closing_early_stops_both_and_frees_the_place(
    services: Services, store: Store, sample: ScriptedSample, tester: Person
) -> None:
    sample.gate = threading.Event()
    pairs = follow(answer_all(services, tester, "live", HELLO, (SAMPLING, SAMPLING), "cv_1"))
    next(pair for pair in pairs if pair[0].text and pair[1].text)
    pairs.close()
    assert services.slots.wait_until_free(tester.person_id, 20)
    turns = read_conversation(store, "cv_1", tester.person_id)
    assert [turn.completion.finish_reason for turn in turns] == ["cancelled", "cancelled"]
    sample.gate.set()
    assert ask(services, tester).finish_reason == "stop"


def test_when_the_second_of_two_is_refused_the_first_is_stopped(
    services: Services, store: Store, sample: ScriptedSample, tester: Person
) -> None:
    sample.at_most, sample.turn = 1, threading.Event()
    with pytest.raises(Busy, match="1 requests wait") as refused:
        answer_all(services, tester, "live", HELLO, (SAMPLING, SAMPLING))
    assert refused.value.retry_after_s >= 1
    assert services.slots.wait_until_free(tester.person_id, 20)
    with store.read() as cursor:
        assert cursor.execute("SELECT count(*) FROM completions").fetchone() == (0,)
    sample.at_most = None
    sample.turn.set()
    assert ask(services, tester).finish_reason == "stop"
