"""What the chat page's asking shows and saves, without a browser."""

from __future__ import annotations

import threading

import pytest

from annotate.pages.chat_handlers import Handlers
from annotate.pages.chat_rows import wait
from annotate.pages.chat_screen import CHAT, FRESH, SIDE_BY_SIDE
from annotate.services import Services
from store.completions import read_conversation, read_conversations
from store.people import Credentials
from store.policies import add_policy
from tests.annotate.chatting import PARTS, Chatter
from tests.annotate.pages import as_person
from tests.fakes import ScriptedSample


@pytest.fixture
def handlers(services: Services) -> Handlers:
    return Handlers(services, PARTS)


@pytest.fixture
def tess(handlers: Handlers, sample: ScriptedSample, people: dict[str, Credentials]) -> Chatter:
    return Chatter(handlers, as_person(people["tester"].person), sample)


def test_an_answer_is_shown_with_the_version_that_wrote_it_and_survives_a_reload(tess: Chatter) -> None:
    answered = tess.send("Hi")
    assert "v0" in answered["chatbot"]["value"][1]["content"]
    assert "Hello, world." in answered["chatbot"]["value"][1]["content"]
    assert tess.handlers.open(tess.request)["chatbot"] == answered["chatbot"]


def test_the_next_message_carries_the_whole_conversation(tess: Chatter) -> None:
    tess.send("Hi")
    tess.send("And you?")
    said = [message["content"] for message in tess.sample.asked[-1][1]]
    assert said == ["Hi", "Hello, world.", "And you?"]


def test_nobody_reads_or_goes_on_with_the_conversation_of_somebody_else(
    handlers: Handlers, tess: Chatter, people: dict[str, Credentials]
) -> None:
    shown = tess.send("Hi")
    root = as_person(people["admin"].person)
    conversation_id = shown["conversation"]
    assert handlers.choose(conversation_id, CHAT, root)["chatbot"]["value"] == []
    mine = list(handlers.send("Mine", conversation_id, shown["at"], CHAT, root))[-1]
    assert mine["conversation"] != conversation_id
    assert len(tess.sample.asked[-1][1]) == 1
    assert "no answer yet" in list(handlers.retry(conversation_id, "", CHAT, root))[-1]["says"]


def test_when_the_engine_gives_nothing_the_text_goes_back_into_the_box(tess: Chatter) -> None:
    tess.sample.breaks_after = 0
    failed = tess.send("Tell me more")
    assert failed["message"] == "Tell me more"
    assert "Could not answer" in failed["says"]
    assert failed["send"]["visible"] is True


def test_a_broken_answer_keeps_what_was_written_and_can_be_tried_again(tess: Chatter) -> None:
    tess.sample.breaks_after = 2
    broken = tess.send("Tell me more")
    assert "Hello, " in broken["chatbot"]["value"][1]["content"]
    assert "stopped" in broken["chatbot"]["value"][1]["content"]
    assert "Could not answer" in broken["says"]
    assert "message" not in broken, "the question is in the conversation, not in the box"
    tess.sample.breaks_after = None
    again = tess.retry((*tess.at, CHAT))
    assert "2 of 2" in again["chatbot"]["value"][1]["content"]
    assert "gone" in again["better"]["elem_classes"], "a stopped answer is compared with nothing"


def test_a_busy_engine_leaves_the_question_to_be_sent_again(tess: Chatter) -> None:
    tess.sample.at_most = 1
    failed = tess.send("Hi", mode=SIDE_BY_SIDE)
    assert failed["message"] == "Hi"
    assert "try again shortly" in failed["says"]
    assert "gone" in failed["duel"]["elem_classes"]


def test_closing_the_stream_keeps_what_was_written(
    handlers: Handlers, services: Services, tess: Chatter, people: dict[str, Credentials]
) -> None:
    tess.sample.gate = threading.Event()
    frames = handlers.send("Hi", "", "", CHAT, tess.request)
    next(frames)
    conversation_id = next(frames)["conversation"]
    at = next(frame["at"] for frame in frames if "Hello" in str(frame["chatbot"]))
    frames.close()  # type: ignore[attr-defined]
    owner = people["tester"].person.person_id
    assert services.slots.wait_until_free(owner, 20)
    (turn,) = read_conversation(services.store, conversation_id, owner)
    assert turn.completion.finish_reason == "cancelled"
    settled = handlers.settle(conversation_id, at, CHAT, tess.request)
    assert "Stopped." in settled["says"]
    assert "Hello" in settled["chatbot"]["value"][1]["content"]


@pytest.mark.parametrize("mode", [CHAT, SIDE_BY_SIDE])
def test_whoever_waits_sees_their_place_in_line(tess: Chatter, mode: str) -> None:
    tess.sample.places, tess.sample.turn = (23,), threading.Event()
    waiting = tess.handlers.send("Hi", "", "", mode, tess.request)
    place = next(frame for frame in waiting if "in line" in str(frame.get("chatbot")))
    assert "23rd in line" in place["chatbot"]["value"][1]["content"]
    tess.sample.turn.set()
    *_, last = waiting
    assert "in line" not in str(last["chatbot"])


@pytest.mark.parametrize(
    ("place", "words"),
    [(None, "Waiting for the model"), (1, "Next in line"), (2, "2nd"), (13, "13th"), (102, "102nd")],
)
def test_places_are_told_in_words(place: int | None, words: str) -> None:
    assert words in wait(place)["content"]


def test_what_the_model_did_not_read_is_said_and_still_said_after_a_reload(tess: Chatter) -> None:
    tess.sample.num_left_out = 4
    answered = tess.send("Hi")
    said = "The oldest 4 messages did not fit the model's memory (context) and were not read."
    assert said in answered["chatbot"]["value"][1]["content"]
    assert tess.handlers.open(tess.request)["chatbot"] == answered["chatbot"]
    beside = tess.send("And?", mode=SIDE_BY_SIDE)
    assert "oldest 4 messages" in beside["says"]
    tess.sample.num_left_out = 1
    assert "oldest message did not fit" in tess.send("So?")["chatbot"]["value"][5]["content"]


def test_an_empty_message_asks_nobody(tess: Chatter) -> None:
    assert "Write a message first." in tess.send("  ")["says"]
    assert tess.sample.asked == []


def test_the_same_question_is_not_asked_anew(tess: Chatter) -> None:
    shown = tess.send("Hi")
    refused = tess.ask_anew(" Hi ", "0", (shown["conversation"], shown["at"], CHAT))
    assert "The question is the same" in refused["says"]
    gone = tess.ask_anew("Hello", "7", (shown["conversation"], shown["at"], CHAT))
    assert "no longer on screen" in gone["says"]
    assert len(tess.sample.asked) == 1


def test_a_new_chat_stays_new_after_a_reload(
    handlers: Handlers, services: Services, tess: Chatter, people: dict[str, Credentials]
) -> None:
    tess.send("Hi")
    assert len(read_conversations(services.store, people["tester"].person.person_id)) == 1
    tess.request.query_params = {"c": FRESH}
    assert handlers.open(tess.request)["chatbot"]["value"] == []


def test_a_policy_that_changed_in_mid_chat_is_told(services: Services, tess: Chatter) -> None:
    add_policy(services.store, "v1", "v0", None, None)
    tess.send("Hi")
    tess.sample.version = "v1"
    shown = tess.send("And?")
    first, second = (shown["chatbot"]["value"][place]["content"] for place in (1, 3))
    assert "now v1" not in first
    assert "now v1" in second


def test_a_starter_is_sent_as_a_message(handlers: Handlers, tess: Chatter) -> None:
    shown = list(handlers.sending("Explain recursion.")("", "", CHAT, tess.request))[-1]
    assert "Explain recursion." in shown["chatbot"]["value"][0]["content"]
