"""Which stages a round runs, on what, in which order, and what a judgement has become by then."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from store.database import Store
from store.effective import QualitySettings
from store.errors import BadValue
from store.judgements import save_judgement
from store.snapshots import write_snapshot
from tests.store import samples
from tests.store.test_snapshots import judge_together
from tests.trainer.conftest import accuracy, ids, pair_rows, rating_rows
from trainer.answers import AnswerCollator, build_answer_trainer, prepare_answers, train_answers
from trainer.dpo import pair_dataset
from trainer.guarded import begin_guarded
from trainer.preferences import prepare_pairs, prepare_ratings, read_pairs, read_ratings
from trainer.qlora import read_weights, start_policy
from trainer.settings import BaseModel, RoundPlan
from trainer.stages import plan_stages, train
from trainer.stopping import Stopping


@pytest.fixture
def sft(settings):
    return replace(settings, sft_epochs=2, sft_learning_rate=2e-3, sft_on="chosen")


def edits(count):
    """Corrections: the better answer was written by a person."""
    return [replace(row, source="edit", chosen_ids=(), rejected_ids=()) for row in pair_rows(count)]


def plan(base, settings, pairs=(), ratings=()):
    return plan_stages(
        settings,
        base.tokenizer,
        prepare_pairs(pairs, base.tokenizer, 256),
        prepare_ratings(ratings, base.tokenizer, 256, 8, 0),
        prepare_answers(pairs, ratings, base.tokenizer, settings),
    )


def test_sft_comes_first_and_the_order_of_the_others_is_a_setting(base, settings, sft):
    names = [stage.name for stage in plan(base, sft, pair_rows(8), rating_rows(16, 16))]
    assert names == ["sft", "kto", "dpo"]
    turned = plan(base, replace(settings, order="dpo,kto"), pair_rows(8), rating_rows(16, 16))
    assert [stage.name for stage in turned] == ["dpo", "kto"]


def test_a_stage_with_too_little_is_skipped_and_its_rows_are_counted(base, settings):
    kto, dpo = plan(base, settings, pair_rows(8), rating_rows(20, 2))
    assert dpo.why_not is None
    assert kto.why_not == "20 desirable, 2 undesirable ratings of 16 each needed"
    (left_out,) = kto.account.left_out.values()
    assert (kto.account.num_read, kto.account.num_used, len(left_out)) == (22, 0, 22)
    assert kto.describe() == f"skipped: {kto.why_not}"
    with pytest.raises(BadValue, match="nothing to train on: there are no ratings; 3 pairs of 8 needed"):
        plan(base, settings, pair_rows(3))


def test_sft_learns_what_people_wrote_each_answer_once(base, settings):
    written = replace(settings, sft_epochs=1)
    rows = [*edits(3), *pair_rows(5, seed=1)]
    again = replace(rows[0], row_id="p0-again", rejected="another rejected .")
    demonstration = replace(rating_rows(1, 0, seed=5)[0], source="import:x", completion_ids=())
    sampled = replace(rating_rows(1, 0, seed=1)[0], source="import:x")
    answers = prepare_answers([*rows, again], [demonstration, sampled], base.tokenizer, written)
    assert [row.row_id for row in answers.rows] == ["p0-0000", "p0-0001", "p0-0002", "r5-0000"]
    assert [(n.row_id, n.why) for n in answers.notices] == [
        ("p0-again", "another row teaches the same answer")
    ]
    assert answers.rows[0].completion_ids == ids(rows[0].chosen)
    assert prepare_answers(rows, [], base.tokenizer, settings).rows == ()


def test_the_loss_is_the_answers_own_likelihood_times_its_weight(base, sft, tmp_path):
    rows = [replace(row, weight=w) for row, w in zip(pair_rows(4), (1.0, 3.0, 1.0, 3.0), strict=True)]
    answers = prepare_answers(rows, [], base.tokenizer, sft)
    start = start_policy(base.model, sft, None)
    trainer = build_answer_trainer(start, base.tokenizer, answers.rows, sft, tmp_path)
    trainer.model.eval()
    expected = []
    for row in answers.rows:
        whole = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
        logps = trainer.model(input_ids=whole).logits[0, len(row.prompt_ids) - 1 : -1].log_softmax(-1)
        picked = logps.gather(1, torch.tensor(row.completion_ids)[:, None])
        expected.append(-row.weight * picked.mean().item())
    batch = AnswerCollator(base.tokenizer.pad_token_id)([trainer.train_dataset[n] for n in range(4)])
    loss = trainer.compute_loss(trainer.model, batch)
    assert loss.item() == pytest.approx(sum(expected) / 4, abs=1e-5)


def test_sft_raises_held_out_accuracy(base, sft, tmp_path, progress):
    answers = prepare_answers(pair_rows(48), [], base.tokenizer, sft)
    policy = train_answers(
        start_policy(base.model, sft, None), base.tokenizer, answers.rows, sft, tmp_path, progress
    )
    assert accuracy(policy, prepare_pairs(pair_rows(40, seed=1), base.tokenizer, 256).rows) > 0.9


@pytest.mark.parametrize("order", ["dpo,kto", "kto,dpo"])
def test_each_stage_goes_on_from_where_the_one_before_ended(base, sft, tmp_path, progress, order):
    settings = replace(sft, order=order, epochs=1, kto_epochs=1, sft_epochs=1)
    stages = plan(base, settings, pair_rows(16), rating_rows(16, 16))
    begun, ended = [], []

    def watch(stage):
        def run(start, *rest):
            begun.append(start.weights)
            policy = stage.run(start, *rest)
            ended.append(read_weights(policy))
            assert list(policy.peft_config) == ["default"], "the reference is the base throughout"
            return policy

        return replace(stage, run=run)

    told = RoundPlan("r", "v1", "v0", BaseModel("unused"), trainer=settings)
    guarded = begin_guarded(tmp_path, told, "", "", {}, progress, Stopping(), (), ())
    train(told, base, None, [watch(stage) for stage in stages], guarded)
    assert begun[0] is None
    for weights, before in zip(begun[1:], ended, strict=False):
        assert all(torch.equal(weights[name], before[name]) for name in before)
    assert [stage.name for stage in stages] == ["sft", *order.split(",")]


def taken(store: Store, tmp_path, **quality):
    write_snapshot(store, tmp_path / "snapshot", 0.0, QualitySettings(**quality))
    return (
        read_pairs(tmp_path / "snapshot" / "pairs.parquet"),
        read_ratings(tmp_path / "snapshot" / "ratings.parquet"),
    )


@pytest.fixture
def store():
    opened = Store.in_memory()
    yield opened
    opened.close()


def test_agreement_becomes_weight_and_flip_in_the_trainers_rows(store, tmp_path, base):
    """Two people who always agree and one who says the opposite half of the time."""
    people = [samples.person(store).person_id for _ in range(3)]
    for verdicts in ("111", "222", "112", "221", "111", "222", "112", "221"):
        judge_together(store, people, verdicts)
    rows, _ = taken(store, tmp_path)
    rows = [replace(row, rejected_ids=(4, 5)) for row in rows]  # the store's samples are all the same ids
    assert len({row.probability for row in rows}) > 1
    prepared = prepare_pairs(rows, base.tokenizer, 256)
    dataset = pair_dataset(prepared.rows, label_smoothing=0.0)
    mean = sum(row.weight for row in rows) / len(rows)
    for row, line in zip(sorted(rows, key=lambda r: r.row_id), dataset, strict=True):
        assert line["flip"] == pytest.approx(1 - row.probability)
        assert line["weight"] == pytest.approx(row.weight / mean)
    flips = sorted(line["flip"] for line in dataset)
    assert flips[-1] > 2 * flips[0], "who is doubted is taken for flipped more often"


def test_both_bad_is_two_undesirable_rows_and_a_tie_is_none(store, tmp_path):
    ann = samples.person(store).person_id
    for choice in ("both_bad", "tie"):
        samples.task(store)
        save_judgement(store, samples.lease(store, ann).task.task_id, ann, choice=choice)
    pairs, ratings = taken(store, tmp_path)
    assert pairs == []
    assert [row.desirable for row in ratings] == [False, False]
