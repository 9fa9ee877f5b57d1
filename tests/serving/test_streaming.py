"""Text that comes in pieces is the text that comes at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from serving.streaming import StopSearch, TextStream
from tests.serving.conftest import make_tokenizer

TOKENIZER = make_tokenizer()


def decode(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def stream(ids: Sequence[int]) -> list[str]:
    text = TextStream(partial(decode, TOKENIZER))
    return [*(text.add([token]) for token in ids), text.add((), is_last=True)]


@pytest.mark.parametrize(
    "text", ["naïve café", "日本語のテキスト", "👩‍👩‍👧‍👦 family 🏳️‍🌈", "a\u0301 – “quoted” … \t\n end"]
)
def test_no_piece_holds_half_a_character(text: str) -> None:
    pieces = stream(TOKENIZER(text)["input_ids"])
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert len([piece for piece in pieces if piece]) > 1


@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=40))
def test_pieces_of_any_tokens_join_to_the_whole_decode(ids: list[int]) -> None:
    assert "".join(stream(ids)) == decode(TOKENIZER, ids)


def test_tokens_may_come_in_bursts() -> None:
    ids = TOKENIZER("the quick 🦊 jumps over 犬")["input_ids"]
    random.seed(0)
    text, pieces, at = TextStream(partial(decode, TOKENIZER)), [], 0
    while at < len(ids):
        size = random.randint(1, 5)
        pieces.append(text.add(ids[at : at + size]))
        at += size
    assert "".join([*pieces, text.add((), is_last=True)]) == decode(TOKENIZER, ids)


def test_an_answer_that_ends_inside_a_character_shows_that_it_does() -> None:
    ids = TOKENIZER("ok 🦊")["input_ids"][:-1]
    pieces = stream(ids)
    assert "".join(pieces[:-1]) == "ok "
    assert pieces[-1] == "\ufffd"


def test_special_tokens_are_not_text(base_dir: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base_dir)
    ids = tokenizer("the<|end|>", add_special_tokens=False)["input_ids"]
    assert "".join(stream(ids)) == "the"


STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


@given(st.text("abc", max_size=30), STOPS, st.data())
def test_text_ends_before_the_first_stop_however_it_comes(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    search, passed, rest = StopSearch(stops), "", text
    while rest and not search.has_stopped:
        size = data.draw(st.integers(1, len(rest)))
        passed += search.add(rest[:size])
        rest = rest[size:]
    if not search.has_stopped:
        passed += search.add("", is_last=True)
    ends = [text.find(stop) for stop in stops if stop in text]
    if ends:  # the piece that completes one stop text may complete another one further left as well
        assert search.has_stopped
        assert passed == text[: len(passed)]
        assert not any(stop in passed for stop in stops)
    else:
        assert (passed, search.has_stopped) == (text, False)
