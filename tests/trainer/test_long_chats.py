"""Chats of 200 turns: the oldest turns go, the system message and the answer stay, all of it counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.trainer.conftest import pair_rows, rating_rows
from trainer.preferences import prepare_pairs, prepare_ratings, prompt_ids
from trainer.qlora import load_tokenizer
from trainer.tally import tally

MAX_LENGTH = 256
SYSTEM = {"role": "system", "content": "true calm"}


@pytest.fixture(scope="module")
def tokenizer(base_folder):
    return load_tokenizer(base_folder, None)


def chat(num_turns, *first):
    turns = [
        {"role": role, "content": f"word{number % 60} ?"}
        for number in range(num_turns)
        for role in ("user", "assistant")
    ]
    return (*first, *turns[:-1])


def long_pair(answer_length=8, *first):
    ids = tuple(60 + n % 20 for n in range(answer_length))
    row = pair_rows(1)[0]
    return replace(row, messages=chat(200, *first), chosen_ids=ids, rejected_ids=ids[::-1])


@pytest.mark.parametrize("first", [(), (SYSTEM,)])
def test_as_few_of_the_oldest_turns_as_possible_go(tokenizer, first):
    row = long_pair(8, *first)
    prepared = prepare_pairs([row], tokenizer, MAX_LENGTH)
    (pair,) = prepared.rows
    assert (pair.chosen_ids, pair.rejected_ids) == (row.chosen_ids, row.rejected_ids)
    assert len(pair.prompt_ids) + 8 <= MAX_LENGTH
    num_cut = prepared.notices[0].num_cut
    assert pair.prompt_ids == prompt_ids([*first, *row.messages[len(first) + num_cut :]], tokenizer)
    one_turn_more = [*first, *row.messages[len(first) + num_cut - 2 :]]
    assert len(prompt_ids(one_turn_more, tokenizer)) + 8 > MAX_LENGTH
    account = tally([pair.row_id], prepared.notices)
    assert (account.num_rows_cut, account.num_messages_cut) == (1, num_cut)
    assert prepared.notices[0].what == f"cut: the {num_cut} oldest messages"


def test_the_longer_answer_decides_and_neither_is_cut(tokenizer):
    row = replace(long_pair(), rejected_ids=tuple(60 + n % 20 for n in range(100)))
    (pair,) = prepare_pairs([row], tokenizer, MAX_LENGTH).rows
    assert len(pair.rejected_ids) == 100
    assert len(pair.prompt_ids) + 100 <= MAX_LENGTH


@pytest.mark.parametrize("answer_length", [MAX_LENGTH + 1, MAX_LENGTH - 2])
def test_an_answer_that_leaves_no_room_for_its_question_is_left_out_and_counted(tokenizer, answer_length):
    row = long_pair(answer_length)
    rating = replace(rating_rows(1, 0)[0], messages=row.messages, completion_ids=row.chosen_ids)
    pairs = prepare_pairs([row, *pair_rows(2, seed=1)], tokenizer, MAX_LENGTH)
    account = tally([pair.row_id for pair in pairs.rows], pairs.notices)
    why = "its last question and answer do not fit in max_length"
    assert account.left_out == {why: (row.row_id,)}
    assert (account.num_read, account.num_used) == (3, 2)
    ratings = prepare_ratings([rating], tokenizer, MAX_LENGTH, 8, 0)
    assert [notice.why for notice in ratings.notices] == [why]


def test_a_chat_that_begins_with_an_answer_loses_that_first(tokenizer):
    opening = {"role": "assistant", "content": " ".join(["word1"] * 240)}
    row = replace(pair_rows(1)[0], messages=(opening, {"role": "user", "content": "what is thing1 ?"}))
    prepared = prepare_pairs([row], tokenizer, MAX_LENGTH)
    assert prepared.notices[0].num_cut == 1
    assert prepared.rows[0].prompt_ids == prompt_ids(row.messages[1:], tokenizer)


def test_what_a_stage_reads_is_what_it_uses_and_leaves_out(tokenizer):
    rows = [
        *pair_rows(5),
        replace(long_pair(MAX_LENGTH), row_id="long"),
        replace(pair_rows(1)[0], weight=0.0),
    ]
    prepared = prepare_pairs(rows, tokenizer, MAX_LENGTH)
    ids = [pair.row_id for pair in prepared.rows]
    for why_not in (None, "5 pairs of 8 needed"):
        account = tally(ids, prepared.notices, why_not, max_rows=3)
        left_out = sum(len(row_ids) for row_ids in account.left_out.values())
        assert account.num_read == len(rows) == account.num_used + left_out
    assert account.left_out["the stage was skipped: 5 pairs of 8 needed"] == tuple(ids)
    assert tally(ids, prepared.notices, None, max_rows=3).not_reached == 2
