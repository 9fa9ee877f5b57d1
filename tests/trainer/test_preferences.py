"""Rows to training sets: ids as stored, what is cut, what is left out, and the order KTO sees."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.trainer.conftest import VOCABULARY, ids, pair_rows, rating_rows, write_snapshot
from trainer.preferences import (
    class_weights,
    count_notices,
    mix_classes,
    prepare_pairs,
    prepare_ratings,
    prompt_ids,
    read_pairs,
    read_ratings,
)

END = VOCABULARY.index("<|im_end|>")


@pytest.fixture
def tokenizer(base):
    return base.tokenizer


def test_rows_read_back_from_a_snapshot_are_the_rows_written(tmp_path):
    pairs, ratings = pair_rows(5), rating_rows(3, 2)
    write_snapshot(tmp_path, pairs, ratings, holdout=pairs[:2])
    assert read_pairs(tmp_path / "pairs.parquet") == pairs
    assert read_ratings(tmp_path / "ratings.parquet") == ratings
    assert read_pairs(tmp_path / "holdout.parquet") == pairs[:2]
    assert read_pairs(tmp_path / "absent.parquet") == []


def test_stored_ids_are_never_tokenised_again_nor_ended(tokenizer):
    cut_short = replace(pair_rows(1)[0], chosen="not these words", chosen_ids=(60, 61, 62))
    (pair,) = prepare_pairs([cut_short], tokenizer, 256).rows
    assert pair.chosen_ids == (60, 61, 62)
    assert pair.rejected_ids[-1] == END


def test_a_correction_is_tokenised_and_ended(tokenizer):
    written = replace(pair_rows(1)[0], chosen="clear calm .", chosen_ids=())
    (pair,) = prepare_pairs([written], tokenizer, 256).rows
    assert pair.chosen_ids == ids("clear calm .")


def test_prompt_ends_with_the_opening_of_an_answer(tokenizer):
    rendered = tokenizer.decode(prompt_ids(pair_rows(1)[0].messages, tokenizer))
    assert rendered.endswith("<|im_start|> assistant")


def test_weights_average_one_whatever_their_scale(tokenizer):
    rows = [replace(row, weight=0.2 * (1 + i % 3)) for i, row in enumerate(pair_rows(9))]
    prepared = prepare_pairs(rows, tokenizer, 256).rows
    assert sum(pair.weight for pair in prepared) / 9 == pytest.approx(1.0)
    assert prepared[2].weight == pytest.approx(3 * prepared[0].weight)


def test_the_order_of_rows_does_not_matter(tokenizer):
    rows = pair_rows(9)
    assert prepare_pairs(rows, tokenizer, 256) == prepare_pairs(rows[::-1], tokenizer, 256)


def test_oldest_turns_go_first_and_the_answer_and_system_message_stay(tokenizer):
    turns = [{"role": role, "content": f"word{i}"} for i in range(3) for role in ("user", "assistant")]
    messages = (
        {"role": "system", "content": "true"},
        *turns,
        {"role": "user", "content": "what is thing1 ?"},
    )
    row = replace(pair_rows(1)[0], messages=messages)
    whole = prepare_pairs([row], tokenizer, 256).rows[0]
    longest = max(len(whole.chosen_ids), len(whole.rejected_ids))
    kept = prepare_pairs([row], tokenizer, len(whole.prompt_ids) + longest - 1)
    text = tokenizer.decode(kept.rows[0].prompt_ids)
    assert "true" in text
    assert "word0" not in text
    assert "word1" in text
    assert kept.rows[0].chosen_ids == whole.chosen_ids
    assert count_notices(kept.notices) == {"cut: the oldest messages": 1}


def test_a_row_that_cannot_fit_is_left_out_and_named(tokenizer):
    row = pair_rows(1)[0]
    left = prepare_pairs([row], tokenizer, 12)
    assert left.rows == ()
    assert left.notices[0].row_id == row.row_id
    assert "do not fit in max_length 12" in left.notices[0].what


def test_a_row_the_template_refuses_is_left_out_and_named(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('no system message, please') }}"
    left = prepare_pairs(pair_rows(1), tokenizer, 256)
    assert left.rows == ()
    assert "no system message, please" in left.notices[0].what


def test_a_pair_of_equal_answers_is_left_out(tokenizer):
    row = pair_rows(1)[0]
    left = prepare_pairs([replace(row, rejected_ids=row.chosen_ids)], tokenizer, 256)
    assert count_notices(left.notices) == {"left out: chosen and rejected are the same tokens": 1}


@pytest.mark.parametrize(("up", "down"), [(40, 40), (60, 20), (17, 63)])
def test_every_batch_of_ratings_mixes_both_classes(tokenizer, up, down):
    mixed = prepare_ratings(rating_rows(up, down), tokenizer, 256, 8, 0).rows
    batches = [mixed[i : i + 8] for i in range(0, 80, 8)]
    shares = [sum(row.desirable for row in batch) / 8 for batch in batches]
    assert all(abs(share - up / 80) <= 0.2 for share in shares)


def test_equal_prompts_do_not_meet_in_a_batch_where_that_can_be_helped(tokenizer):
    mixed = prepare_ratings(rating_rows(40, 40), tokenizer, 256, 4, 0).rows
    for start in range(0, 72, 4):  # the last batches get what is left
        prompts = [row.prompt_ids for row in mixed[start : start + 4]]
        assert len(set(prompts)) == 4


def test_the_same_seed_mixes_alike_and_another_does_not(tokenizer):
    rows = list(prepare_ratings(rating_rows(20, 20), tokenizer, 256, 8, 0).rows)
    rows.sort(key=lambda row: row.row_id)
    assert mix_classes(rows, 8, 1) == mix_classes(rows, 8, 1)
    assert mix_classes(rows, 8, 1) != mix_classes(rows, 8, 2)


def test_a_last_batch_of_one_is_left_out(tokenizer):
    ratings = prepare_ratings(rating_rows(9, 8), tokenizer, 256, 8, 0)
    assert len(ratings.rows) == 16
    assert count_notices(ratings.notices) == {"left out: it would be a batch of its own": 1}


@pytest.mark.parametrize(("up", "down"), [(10, 10), (40, 33), (100, 20), (20, 100), (30, 31)])
def test_class_weights_bring_the_ratio_within_the_papers_bounds(up, down):
    desirable, undesirable = class_weights(up, down)
    assert 1.0 <= desirable * up / (undesirable * down) <= 4 / 3 + 1e-9
    assert min(desirable, undesirable) == 1.0


def test_rows_that_are_too_long_are_one_count_however_long_they_are(tokenizer):
    """Each length was once a line of its own, and nothing said how many there were."""
    rows = [replace(row, chosen_ids=(9,) * (40 + n)) for n, row in enumerate(pair_rows(5))]
    notices = prepare_pairs(rows, tokenizer, 32).notices
    assert len({notice.what for notice in notices}) == 5
    assert count_notices(notices) == {"left out: its last question and answer do not fit in max_length": 5}
