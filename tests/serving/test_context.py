"""What is left out of a conversation that is longer than the context, with one token a character."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.context import fit_messages
from store.errors import BadValue
from store.records import Message


def characters(messages: Sequence[Message]) -> list[int]:
    return [ord(letter) for message in messages for letter in message["content"]]


def talk(*turns: str) -> list[Message]:
    """`talk("s:be kind", "u:hello", "a:hi")`."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[turn[0]], "content": turn[2:]} for turn in turns]  # type: ignore[typeddict-item]


def fit(messages: list[Message], context: int, max_tokens: int = 4) -> tuple[str, int]:
    ids, num_left_out = fit_messages(messages, characters, context, max_tokens)
    return "".join(map(chr, ids)), num_left_out


def test_what_fits_is_kept_whole() -> None:
    assert fit(talk("s:SS", "u:aaaa", "a:bbbb", "u:cc"), 16) == ("SSaaaabbbbcc", 0)


def test_the_oldest_messages_go_first_and_the_first_kept_is_the_users() -> None:
    messages = talk("u:aaaa", "a:bbbb", "u:cccc", "a:dddd", "u:eeee")
    # 20 tokens and 4 for the answer: one message would be enough, but an answer cannot open a conversation.
    assert fit(messages, 20) == ("ccccddddeeee", 2)
    assert fit(messages, 15) == ("ccccddddeeee", 2)
    assert fit(messages, 14) == ("eeee", 4)


def test_system_messages_stay_wherever_they_are() -> None:
    messages = talk("s:SS", "u:aaaa", "a:bbbb", "s:TT", "u:cccc", "a:dddd", "u:ee")
    assert fit(messages, 18) == ("SSTTccccddddee", 2)
    assert fit(messages, 16) == ("SSTTee", 4)


def test_room_is_kept_for_a_quarter_of_the_context_at_most() -> None:
    messages = talk("u:aaaa", "a:bb", "u:cccc")
    assert fit(messages, 12, max_tokens=2) == ("aaaabbcccc", 0)
    assert fit(messages, 12, max_tokens=3) == ("cccc", 2)
    assert fit(messages, 16, max_tokens=1000) == ("aaaabbcccc", 0)


def test_a_last_message_that_leaves_little_room_is_answered_in_that_room() -> None:
    assert fit(talk("u:aaaa", "a:bbbb", "u:ccccccccccccccc"), 16) == ("ccccccccccccccc", 2)


def test_a_last_message_that_does_not_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(BadValue, match=r"prompt has 16 tokens and the model's context holds 16, answer incl"):
        fit(talk("u:cccccccccccccccc"), 16)
    with pytest.raises(BadValue, match=r"prompt has 18 tokens .* without all earlier messages; shorten"):
        fit(talk("s:SS", "u:a", "a:b", "u:cccccccccccccccc"), 16)


def test_a_conversation_that_ends_with_an_answer_keeps_that_answer() -> None:
    assert fit(talk("u:aaaa", "a:bbbb", "u:cccc", "a:dddd"), 12) == ("ccccdddd", 2)
    assert fit(talk("u:aaaa", "a:bbbb", "u:cccc", "a:dddd"), 9) == ("dddd", 3)


TURN = st.tuples(st.sampled_from(["s", "u", "a"]), st.text("xyz", max_size=12)).map(":".join)


@given(st.lists(TURN, min_size=1, max_size=12), st.integers(4, 60), st.integers(1, 40))
def test_as_little_is_left_out_as_possible(turns: list[str], context: int, max_tokens: int) -> None:
    """Against trying every number of left-out messages in turn."""
    messages, room = talk(*turns), min(max_tokens, context // 4)
    kept = messages
    loose = [m for m in messages[:-1] if m["role"] != "system"]
    expected = 0
    while loose and len(characters(kept)) + room > context:
        while loose:
            kept = [m for m in kept if m is not loose[0]]
            loose, expected = loose[1:], expected + 1
            if loose and loose[0]["role"] == "user":
                break
    if len(characters(kept)) >= context:
        with pytest.raises(BadValue):
            fit_messages(messages, characters, context, max_tokens)
    else:
        assert fit_messages(messages, characters, context, max_tokens) == (characters(kept), expected)
