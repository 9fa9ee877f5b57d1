"""Text from people: every letter of every script is kept, hidden control characters are named and refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.text import limit, limit_reasons, refuse_controls
from store.errors import BadValue


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_any_text_without_control_characters_is_kept_as_it_is(text: str) -> None:
    assert refuse_controls(text) == text


@given(st.text(), st.sampled_from(["\x00", "\x07", "\x1b", "\x7f", "\ud800", "\udfff"]), st.text())
def test_a_control_character_or_half_a_pair_is_refused_anywhere(before: str, bad: str, after: str) -> None:
    with pytest.raises(BadValue, match=r"character \d+ is U\+[0-9A-F]{4}"):
        refuse_controls(before + bad + after)


def test_tabs_and_line_ends_are_text() -> None:
    assert refuse_controls("a\tb\r\nc") == "a\tb\r\nc"


def test_a_text_over_the_limit_is_refused_with_the_limit() -> None:
    with pytest.raises(BadValue, match="the comment has 11 characters; at most 10 are kept"):
        limit("x" * 11, 10, "the comment")


def test_reasons_are_kept_once_each() -> None:
    assert limit_reasons(("wrong", "rude", "wrong")) == ("wrong", "rude")
    with pytest.raises(BadValue, match="13 reasons"):
        limit_reasons([str(number) for number in range(13)])
