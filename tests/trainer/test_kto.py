"""KTO on ratings: the rows it may train on, the order it trains in, and learning."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.conftest import accuracy, pair_rows, rating_rows
from trainer.dpo import train_dpo
from trainer.kto import build_rating_trainer, rating_dataset, rotate, train_kto, why_not_kto
from trainer.preferences import TrainingRating, prepare_pairs, prepare_ratings
from trainer.qlora import read_weights, start_policy
from trainer.settings import TrainerSettings


def prepared(base, up, down, seed=0):
    return prepare_ratings(rating_rows(up, down, seed), base.tokenizer, 256, 8, 0)


@pytest.mark.parametrize(
    ("up", "down", "says"),
    [
        (0, 0, "there are no ratings"),
        (40, 3, "40 desirable, 3 undesirable ratings of 16 each needed"),
        (15, 40, "15 desirable, 40 undesirable ratings of 16 each needed"),
        (16, 16, None),
    ],
)
def test_too_few_of_one_class_is_a_reason_not_to_train(up, down, says):
    assert why_not_kto(up, down, TrainerSettings()) == says


def test_each_prompt_meets_another_prompts_answer_of_its_own_batch(base):
    ratings = prepared(base, 16, 16)
    rows = rating_dataset(ratings, 8)
    for start in range(0, 32, 8):
        batch = rows[start : start + 8]
        assert batch["KL_completion_ids"] == [batch["completion_ids"][-1], *batch["completion_ids"][:-1]]


def rating(prompt, desirable=True):
    return TrainingRating("r", (prompt,), (prompt, 50), desirable)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=10))
def test_a_rotated_batch_keeps_its_answers_and_pairs_no_prompt_with_itself_if_a_shift_can(prompts):
    batch = [rating(prompt) for prompt in prompts]
    shifted = rotate(batch)
    assert Counter(shifted) == Counter(batch)
    clashes = [
        sum(a == b for a, b in zip(prompts, prompts[-step:] + prompts[:-step], strict=True))
        for step in range(1, len(prompts))
    ]
    found = sum(a.prompt_ids == b.prompt_ids for a, b in zip(batch, shifted, strict=True))
    assert found == (0 if 0 in clashes else clashes[0])


def test_prompts_that_cannot_be_parted_are_named_in_a_warning(caplog):
    assert rotate([rating(1), rating(1), rating(2)]) is not None
    assert "a KTO batch of 3 ratings has 2 prompts" in caplog.text


def test_kto_starts_at_its_known_loss_and_raises_held_out_accuracy(base, settings, tmp_path, progress):
    policy = train_kto(
        start_policy(base.model, settings, None),
        base.tokenizer,
        prepared(base, 64, 64),
        settings,
        tmp_path,
        progress,
    )
    pairs = prepare_pairs(pair_rows(40, seed=1), base.tokenizer, 256).rows
    assert accuracy(policy, pairs) > 0.9
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert {"kl", "rewards/margins", "rewards/chosen", "rewards/rejected"} <= set(lines[0])


def test_the_likelihood_term_is_added_to_the_loss_and_told_apart(base, settings, tmp_path):
    # Before the first step the loss itself is 0.5, and every answer is as likely as under the base.
    ratings, told = prepared(base, 16, 16), replace(settings, kto_sft_weight=2.0, kto_epochs=1)
    start = start_policy(base.model, settings, None)
    trainer = build_rating_trainer(start, base.tokenizer, ratings, told, tmp_path)
    reference = trainer.train_dataset["ref_logps"]
    trainer.train()
    liked = [
        -logp / len(row.completion_ids)
        for row, logp in zip(ratings.rows[:8], reference[:8], strict=True)
        if row.desirable
    ]
    log = trainer.state.log_history[0]
    assert log["loss/preference"] == pytest.approx(0.5, abs=1e-5)
    assert log["loss"] == pytest.approx(0.5 + 2.0 * sum(liked) / 8, abs=1e-4)


def test_the_likelihood_term_keeps_liked_answers_likelier(base, settings, tmp_path):
    gains = []
    for weight in (0.0, 4.0):
        told = replace(settings, kto_sft_weight=weight)
        start = start_policy(base.model, told, None)
        trainer = build_rating_trainer(start, base.tokenizer, prepared(base, 32, 32), told, tmp_path)
        trainer.train()
        gains.append(trainer.state.log_history[-2]["logps/chosen"])
        trainer.model.unload()
    without, with_it = gains
    assert with_it > without + 1.0


def test_kto_continues_the_adapter_of_dpo_against_the_base(base, settings, tmp_path, progress):
    pairs = prepare_pairs(pair_rows(48), base.tokenizer, 256).rows
    policy = train_dpo(
        start_policy(base.model, settings, None), base.tokenizer, pairs, settings, tmp_path, progress
    )
    weights = read_weights(policy)
    policy.unload()
    start = start_policy(base.model, settings, None, weights)
    trainer = build_rating_trainer(start, base.tokenizer, prepared(base, 32, 32), settings, tmp_path)
    continued = read_weights(trainer.model)
    assert all((continued[name] == weights[name]).all() for name in weights)
    assert list(trainer.model.peft_config) == ["default"]
    trainer.train()
    # Against the base the rewards of DPO count; against itself the first loss would be 0.5 again.
    assert trainer.state.log_history[0]["loss"] < 0.45


def test_the_rarer_class_weighs_more(base, settings, tmp_path):
    ratings = prepared(base, 16, 48)
    trainer = build_rating_trainer(
        start_policy(base.model, settings, None), base.tokenizer, ratings, replace(settings), tmp_path
    )
    assert (trainer.desirable_weight, trainer.undesirable_weight) == (3.0, 1.0)


def test_each_ratings_loss_is_multiplied_with_its_own_weight(base, settings, tmp_path):
    # At the start every loss is 0.5, so a batch's mean loss shows the mean weight of its rows.
    rows = [replace(row, weight=0.25 + (n % 4)) for n, row in enumerate(rating_rows(16, 16))]
    ratings = prepare_ratings(rows, base.tokenizer, 256, 8, 0)
    assert sum(row.weight for row in ratings.rows) / 32 == pytest.approx(1.0)
    start = start_policy(base.model, settings, None)
    trainer = build_rating_trainer(start, base.tokenizer, ratings, replace(settings, kto_epochs=1), tmp_path)
    trainer.train()
    first_batch = ratings.rows[:8]
    classes = {True: ratings.desirable_weight, False: ratings.undesirable_weight}
    expected = sum(0.5 * row.weight * classes[row.desirable] for row in first_batch) / 8
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, abs=1e-4)
    assert expected != pytest.approx(0.5, abs=0.01), "the weights of this batch must tell"


def test_a_class_counts_by_its_weight_and_not_by_its_rows(base):
    rows = [replace(row, weight=3.0 if row.desirable else 1.0) for row in rating_rows(16, 48)]
    ratings = prepare_ratings(rows, base.tokenizer, 256, 8, 0)
    assert (ratings.desirable_weight, ratings.undesirable_weight) == pytest.approx((1.0, 1.0))
