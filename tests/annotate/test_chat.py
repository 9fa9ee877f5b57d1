"""What is kept of an answer, and who may ask."""

from __future__ import annotations

import pytest

from annotate.chat import Answer, answer, answer_twice
from annotate.errors import TooManyRequests
from annotate.services import Services
from store.completions import new_conversation_id, read_completion, read_conversation
from store.database import Store
from store.errors import BadValue, Busy, NotFound
from store.people import Credentials
from store.records import Message, Person, Sampling
from tests.fakes import ScriptedSample

HELLO: list[Message] = [{"role": "user", "content": "Hello?"}]
SAMPLING = Sampling(temperature=0.5, top_p=0.9, max_tokens=40, seed=11)


@pytest.fixture
def tester(people: dict[str, Credentials]) -> Person:
    return people["tester"].person


def ask(services: Services, person: Person) -> Answer:
    return list(answer(services, person, "live", HELLO, SAMPLING))[-1]


def test_the_answer_grows_and_keeps_its_id(services: Services, tester: Person) -> None:
    answers = list(answer(services, tester, "live", HELLO, SAMPLING))
    assert [grown.text for grown in answers] == [
        "Hello",
        "Hello, ",
        "Hello, world",
        "Hello, world.",
        "Hello, world.",
    ]
    assert len({grown.completion_id for grown in answers}) == 1
    assert [grown.finish_reason for grown in answers] == [None] * 4 + ["stop"]


def test_everything_about_the_answer_is_kept(services: Services, store: Store, tester: Person) -> None:
    conversation_id = new_conversation_id()
    *_, last = answer(services, tester, "live", HELLO, SAMPLING, conversation_id)
    kept = read_completion(store, last.completion_id)
    assert kept == last.completion
    assert (kept.text, kept.version, kept.finish_reason) == ("Hello, world.", "v0", "stop")
    assert (kept.token_ids, kept.logprob_sum, kept.num_prompt_tokens) == ((10, 11, 12, 13), -6.0, 7)
    assert (kept.sampling, kept.messages, kept.person_id) == (SAMPLING, tuple(HELLO), tester.person_id)
    assert [turn.completion for turn in read_conversation(store, conversation_id, tester.person_id)] == [kept]


def test_an_answer_nobody_waits_for_is_kept_as_cancelled(
    services: Services, store: Store, sample: ScriptedSample, tester: Person
) -> None:
    answers = answer(services, tester, "live", HELLO, SAMPLING)
    next(answers)
    second = next(answers)
    answers.close()
    kept = read_completion(store, second.completion_id)
    assert (kept.text, kept.finish_reason, kept.token_ids) == ("Hello, ", "cancelled", ())
    assert sample.stopped.is_set()
    assert ask(services, tester).finish_reason == "stop"


@pytest.mark.usefixtures("sample")
def test_closing_before_the_first_word_stops_the_engine_and_frees_the_place(
    services: Services, store: Store, tester: Person
) -> None:
    answer(services, tester, "live", HELLO, SAMPLING).close()
    with store.read() as cursor:
        assert cursor.execute("SELECT count(*) FROM completions").fetchone() == (0,)
    assert ask(services, tester).finish_reason == "stop"


def test_a_broken_engine_leaves_the_text_so_far(
    services: Services, store: Store, sample: ScriptedSample, tester: Person
) -> None:
    sample.breaks_after = 2
    answers = answer(services, tester, "live", HELLO, SAMPLING)
    first = next(answers)
    with pytest.raises(RuntimeError, match="the engine broke"):
        list(answers)
    kept = read_completion(store, first.completion_id)
    assert (kept.text, kept.finish_reason) == ("Hello, ", "cancelled")
    sample.breaks_after = None
    assert ask(services, tester).finish_reason == "stop"


@pytest.mark.usefixtures("sample")
def test_one_answer_at_a_time_for_each_person(
    services: Services, people: dict[str, Credentials], tester: Person
) -> None:
    answers = answer(services, tester, "live", HELLO, SAMPLING)
    next(answers)
    with pytest.raises(TooManyRequests, match="still being written"):
        answer(services, tester, "live", HELLO, SAMPLING)
    assert ask(services, people["admin"].person).finish_reason == "stop"
    answers.close()
    assert ask(services, tester).finish_reason == "stop"


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
    pairs = list(answer_twice(services, tester, "live", HELLO, samplings, "cv_1"))
    assert (pairs[0][0].text, pairs[0][1].text) == ("Hello", "Hello"), "both begin before one is finished"
    one, other = pairs[-1]
    assert (one.finish_reason, other.finish_reason) == ("stop", "stop")
    assert [asked[2].seed for asked in sample.asked] == [1, 2]
    kept = [turn.completion for turn in read_conversation(store, "cv_1", tester.person_id)]
    assert kept == [one.completion, other.completion]
    assert ask(services, tester).finish_reason == "stop"


def test_closing_early_stops_both_and_frees_the_place(
    services: Services, store: Store, sample: ScriptedSample, tester: Person
) -> None:
    pairs = answer_twice(services, tester, "live", HELLO, (SAMPLING, SAMPLING), "cv_1")
    next(pairs)
    with pytest.raises(TooManyRequests, match="still being written"):
        answer(services, tester, "live", HELLO, SAMPLING)
    pairs.close()
    turns = read_conversation(store, "cv_1", tester.person_id)
    assert [turn.completion.finish_reason for turn in turns] == ["cancelled", "cancelled"]
    assert sample.stopped.is_set()
    assert ask(services, tester).finish_reason == "stop"


def test_when_the_second_of_two_is_refused_the_first_is_stopped(
    services: Services, store: Store, sample: ScriptedSample, tester: Person
) -> None:
    sample.at_most = 1
    with pytest.raises(Busy, match="1 requests wait"):
        answer_twice(services, tester, "live", HELLO, (SAMPLING, SAMPLING))
    with store.read() as cursor:
        assert cursor.execute("SELECT count(*) FROM completions").fetchone() == (0,)
    sample.at_most = None
    assert ask(services, tester).finish_reason == "stop"
