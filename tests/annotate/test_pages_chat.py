"""What the chat page's handlers show and save, without a browser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from annotate.pages.chat_handlers import Handlers
from annotate.pages.chat_labels import VOTES, Labels
from annotate.pages.chat_rows import find_step, read_act, read_thumb
from annotate.pages.chat_screen import CHAT, FRESH, SIDE_BY_SIDE, Parts, draw_left
from annotate.services import Services
from store.completions import read_conversation, read_conversations
from store.errors import BadValue, NotFound
from store.people import Credentials
from tests.annotate.pages import as_person
from tests.fakes import ScriptedSample

PARTS = Parts(**{name: name for name in Parts.__dataclass_fields__})  # names in place of components


@pytest.fixture
def handlers(services: Services) -> Handlers:
    return Handlers(services, PARTS)


@pytest.fixture
def tess(people: dict[str, Credentials]) -> Any:
    return as_person(people["tester"].person)


def ask(handlers: Handlers, request: Any, text: str = "Hi", conversation_id: str = "") -> Any:
    """Send a message and return the last of what is shown."""
    return list(handlers.send(text, conversation_id, request))[-1]


def thumb(index: object, liked: object) -> Any:
    return SimpleNamespace(index=index, liked=liked)


def test_an_answer_is_shown_with_the_version_that_wrote_it_and_survives_a_reload(
    handlers: Handlers, tess: Any
) -> None:
    answered = ask(handlers, tess)
    assert "v0" in answered["chatbot"]["value"][1]["content"]
    assert "Hello, world." in answered["chatbot"]["value"][1]["content"]
    assert handlers.open(tess)["chatbot"] == answered["chatbot"]


def test_the_next_message_carries_the_whole_conversation(
    handlers: Handlers, sample: ScriptedSample, tess: Any
) -> None:
    conversation_id = ask(handlers, tess)["conversation"]
    ask(handlers, tess, "And you?", conversation_id)
    assert [message["content"] for message in sample.asked[-1][1]] == ["Hi", "Hello, world.", "And you?"]


def test_a_thumb_is_saved_shown_again_and_taken_back(
    handlers: Handlers, services: Services, tess: Any
) -> None:
    conversation_id = ask(handlers, tess)["conversation"]
    person_id = read_conversations_owner(services, conversation_id)
    for liked, kept, value in ((False, "Dislike", -1), (True, "Like", 1), ("", None, 0)):
        rated = handlers.rate(conversation_id, thumb(1, liked), tess)
        assert rated["chatbot"]["feedback_value"] == [kept]
        assert read_conversation(services.store, conversation_id, person_id)[0].rating == value


def read_conversations_owner(services: Services, conversation_id: str) -> str:
    sql = "SELECT person_id FROM completions WHERE conversation_id = ?"
    with services.store.read() as cursor:
        row = cursor.execute(sql, [conversation_id]).fetchone()
    assert row is not None
    return str(row[0])


def test_only_a_thumb_down_asks_what_was_wrong(handlers: Handlers, tess: Any) -> None:
    conversation_id = ask(handlers, tess)["conversation"]
    down = handlers.rate(conversation_id, thumb(1, False), tess)
    assert "gone" not in down["what_was_wrong"]["elem_classes"]
    assert "Saved, thank you." in handlers.add_reasons(down["rated"], ["incorrect"], "no", tess)["says"]
    up = handlers.rate(conversation_id, thumb(1, True), tess)
    assert "gone" in up["what_was_wrong"]["elem_classes"]


@pytest.mark.parametrize("index", [0, 2, 3, -1, True, "1", None, (1, 1)])
def test_a_forged_place_in_the_conversation_is_refused(handlers: Handlers, tess: Any, index: object) -> None:
    conversation_id = ask(handlers, tess)["conversation"]
    refused = handlers.rate(conversation_id, thumb(index, True), tess)
    assert "no finished answer at that place" in refused["says"]
    assert refused["chatbot"]["feedback_value"] == [None]


def test_nobody_reads_or_rates_the_conversation_of_somebody_else(
    handlers: Handlers, tess: Any, people: dict[str, Credentials]
) -> None:
    conversation_id = ask(handlers, tess)["conversation"]
    root = as_person(people["admin"].person)
    assert handlers.choose(conversation_id, root)["chatbot"]["value"] == []
    assert "no finished answer" in handlers.rate(conversation_id, thumb(1, True), root)["says"]
    assert ask(handlers, root, "Mine", conversation_id)["conversation"] != conversation_id


def test_when_the_engine_breaks_the_text_goes_back_into_the_box(
    handlers: Handlers, sample: ScriptedSample, tess: Any
) -> None:
    sample.breaks_after = 2
    failed = ask(handlers, tess, "Tell me more")
    assert failed["message"] == "Tell me more"
    assert "Could not answer" in failed["says"]
    assert failed["send"]["visible"] is True


def test_closing_the_stream_keeps_what_was_written(handlers: Handlers, services: Services, tess: Any) -> None:
    frames = handlers.send("Hi", "", tess)
    conversation_id = next(frames)["conversation"]
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    owner = read_conversations_owner(services, conversation_id)
    (turn,) = read_conversation(services.store, conversation_id, owner)
    assert turn.completion.finish_reason == "cancelled"
    assert turn.completion.text.startswith("Hello")


def test_an_empty_message_asks_nobody(handlers: Handlers, sample: ScriptedSample, tess: Any) -> None:
    assert "Write a message first." in ask(handlers, tess, "  ")["says"]
    assert sample.asked == []


def test_a_new_chat_stays_new_after_a_reload(
    handlers: Handlers, services: Services, tess: Any, people: dict[str, Credentials]
) -> None:
    ask(handlers, tess)
    assert len(read_conversations(services.store, people["tester"].person.person_id)) == 1
    tess.query_params = {"c": FRESH}
    assert handlers.open(tess)["chatbot"]["value"] == []


def test_words_that_are_no_thumb_are_refused() -> None:
    assert [read_thumb(liked) for liked in (True, False, "")] == [1, -1, 0]
    with pytest.raises(BadValue, match="a thumb is up, down or taken back, not 'Great'"):
        read_thumb("Great")


def test_a_place_in_an_empty_conversation_is_nothing() -> None:
    with pytest.raises(NotFound):
        find_answer([], 1)
