"""The split: one family of conversations and prompts is never on both sides, and never comes back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.records import Message, PairRow
from store.splitting import find_held_out, is_held_out, opening_digest

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
AT = datetime(2026, 1, 1, tzinfo=UTC)
ROW = PairRow(
    "r", "p", (), "good", "bad", (), (), "v0", "v0", 1, 1.0, ("ann",), ("j",), "human", 1.0, AT
)  # fmt: skip
# Words with copies that differ in case, spacing and punctuation alone.
QUESTIONS = [f"{word} {number}" for word in ("what is", "tell me") for number in range(6)]
COPIES = [lambda text: text, str.upper, lambda text: f"  {text}? ", lambda text: text.replace(" ", ", ")]


@st.composite
def chats(draw: st.DrawFn) -> list[PairRow]:
    """Rows of conversations that go on, branch, are copied, and whose beginning was sometimes cut."""
    rows = []
    for number in range(draw(st.integers(1, 10))):
        turns = draw(st.lists(st.sampled_from(QUESTIONS), min_size=1, max_size=4))
        said: list[Message] = [Message(role="system", content="Be kind.")] if draw(st.booleans()) else []
        for place, text in enumerate(turns):
            copy = draw(st.sampled_from(COPIES))
            said += [Message(role="assistant", content="yes")] if place else []
            said.append(Message(role="user", content=copy(text)))
        conversation = draw(st.sampled_from(["", "", "c1", "c2", "c3"]))
        messages = tuple(said[2 * draw(st.integers(0, len(turns) - 1)) :])
        row = replace(ROW, row_id=f"r{number:03}", messages=messages, conversation_id=conversation)
        rows.append(replace(row, opening=opening_digest(said)))
    return rows


def are_kin(one: PairRow, other: PairRow) -> bool:
    """Written apart from the code under test: same conversation, or one prompt begins the other."""
    if one.conversation_id and one.conversation_id == other.conversation_id:
        return True
    asked = [[_words(m["content"]) for m in row.messages if m["role"] != "system"] for row in (one, other)]
    shorter = min(len(texts) for texts in asked)
    return asked[0][:shorter] == asked[1][:shorter]


def _words(text: str) -> list[str]:
    return text.lower().replace(",", " ").replace("?", " ").split()


@QUICK
@given(rows=chats(), share=st.sampled_from([0.0, 0.1, 0.3, 0.6]))
def test_rows_of_one_family_are_on_one_side(rows: list[PairRow], share: float) -> None:
    out = find_held_out(rows, share)
    for one in rows:
        for other in rows:
            if are_kin(one, other):
                assert (opening_digest(one.messages) in out) == (opening_digest(other.messages) in out)


@QUICK
@given(rows=chats(), num_known=st.integers(0, 10))
def test_what_was_held_out_stays_held_out_whatever_comes_later(rows: list[PairRow], num_known: int) -> None:
    assert find_held_out(rows[:num_known], 0.3) <= find_held_out(rows, 0.3)
    assert find_held_out(rows, 0.1) <= find_held_out(rows, 0.3)


@QUICK
@given(rows=chats())
def test_a_reserved_prompt_takes_its_whole_family_along(rows: list[PairRow]) -> None:
    reserved = {opening_digest(rows[0].messages)}
    out = find_held_out(rows, 0.0, reserved)
    assert all(opening_digest(row.messages) in out for row in rows if are_kin(rows[0], row))


def test_a_chat_whose_beginning_was_cut_follows_the_question_it_opened_with() -> None:
    first, second = Message(role="user", content="who are you"), Message(role="user", content="and then?")
    whole = replace(ROW, messages=(first,))
    cut = replace(ROW, messages=(second,), opening=opening_digest([first]))
    reserved = [opening_digest([first])]
    assert opening_digest(cut.messages) in find_held_out([whole, cut], 0.0, reserved)


def test_a_prompt_of_signs_alone_is_a_prompt_too() -> None:
    digests = {opening_digest([Message(role="user", content=text)]) for text in ("🎈", "🎉", "?", "")}
    assert len(digests) == 4
    assert is_held_out([Message(role="user", content="🎈")], 1.0)
