"""The loss before the first step: what start and reference promise, and what is said of any other."""

from __future__ import annotations

import logging
from dataclasses import replace
from math import log

import pytest
import torch
from peft import PeftModel
from transformers import TrainerState
from trl.trainer.utils import use_adapter

from tests.trainer.conftest import rating_rows
from tests.trainer.test_dpo import prepared, train
from trainer.dpo import build_pair_trainer, train_dpo
from trainer.invariants import CheckStart, WrongStart
from trainer.kto import build_rating_trainer
from trainer.losses import cdpo_losses
from trainer.preferences import prepare_ratings
from trainer.probes import Exchange, Policies
from trainer.qlora import PolicyStart, load_base, read_weights, start_policy
from trainer.settings import BaseModel

LN2 = log(2)


@pytest.fixture
def live_adapter(base, settings, tmp_path, progress):
    """The folder of a trained adapter; the base is as it was."""
    start = start_policy(base.model, settings, None)
    policy = train_dpo(start, base.tokenizer, prepared(base, 24), settings, tmp_path, progress)
    policy.save_pretrained(tmp_path / "live", selected_adapters=["default"])
    policy.unload()
    return tmp_path / "live"


def pair_trainer(base, settings, live, folder):
    start = start_policy(base.model, settings, live)
    return build_pair_trainer(start, base.tokenizer, prepared(base, 8, seed=5), settings, folder)


def first_line(trainer):
    trainer.train()
    return trainer.state.log_history[0]


def handed_over(base, live):
    """The trap: a policy with an adapter, which the library takes for the reference."""
    return PolicyStart(PeftModel.from_pretrained(base.model, str(live), is_trainable=True), None, None)


def test_previous_as_reference_starts_at_a_margin_of_zero(base, live_adapter, settings, tmp_path):
    settings = replace(settings, start="previous", reference="previous", beta=1.0)
    first = first_line(pair_trainer(base, settings, live_adapter, tmp_path))
    assert first["loss"] == pytest.approx(LN2, abs=1e-5)
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-5)


def test_a_continued_policy_starts_at_the_loss_of_stored_log_probs(base, live_adapter, settings, tmp_path):
    rows = prepared(base, 8, seed=5)
    policies = Policies(base, {"live": live_adapter}, 8)
    stored = {
        (name, side): torch.tensor([score.logp for score in policies.score(name, exchanges)])
        for side in ("chosen_ids", "rejected_ids")
        for exchanges in [[Exchange(row.prompt_ids, getattr(row, side)) for row in rows]]
        for name in ("live", "base")
    }
    policies.unload()
    gains = [stored["live", side] - stored["base", side] for side in ("chosen_ids", "rejected_ids")]
    margins = settings.beta * (gains[0] - gains[1])
    expected = cdpo_losses(margins, torch.full_like(margins, settings.label_smoothing)).mean().item()
    settings = replace(settings, start="previous")
    first = first_line(pair_trainer(base, settings, live_adapter, tmp_path))
    assert first["loss"] == pytest.approx(expected, abs=1e-5)
    assert abs(expected - LN2) > 0.05


def test_a_reference_nobody_asked_for_ends_the_training_before_its_first_step(
    base, live_adapter, settings, tmp_path
):
    start = handed_over(base, live_adapter)
    told = replace(settings, start="previous")
    trainer = build_pair_trainer(start, base.tokenizer, prepared(base, 8), told, tmp_path)
    before = read_weights(trainer.model)
    with pytest.raises(WrongStart, match=r"instead of .* not compared with the base.*reference 'base'"):
        trainer.train()
    after = read_weights(trainer.model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_ratings_are_checked_like_pairs(base, live_adapter, settings, tmp_path):
    ratings = prepare_ratings(rating_rows(16, 16), base.tokenizer, 256, 8, 0)
    told = replace(settings, start="previous")
    trainer = build_rating_trainer(handed_over(base, live_adapter), base.tokenizer, ratings, told, tmp_path)
    with pytest.raises(WrongStart, match=r"a row's loss is 0\.5"):
        trainer.train()


def test_a_resumed_training_is_past_its_start(base, live_adapter, settings, tmp_path):
    start = handed_over(base, live_adapter)
    told = replace(settings, start="previous")
    trainer = build_pair_trainer(start, base.tokenizer, prepared(base, 8), told, tmp_path)
    check = trainer.pop_callback(CheckStart)
    check.on_train_begin(trainer.args, TrainerState(global_step=3), trainer.control)
    with pytest.raises(WrongStart):
        check.on_train_begin(trainer.args, TrainerState(), trainer.control)


def test_in_bfloat16_a_wrong_start_is_a_warning(base_folder, live_adapter, settings, tmp_path, caplog):
    coarse = load_base(BaseModel(str(base_folder), quantization="none", dtype="bfloat16"))
    start = handed_over(coarse, live_adapter)
    told = replace(settings, start="previous", epochs=1)
    build_pair_trainer(start, coarse.tokenizer, prepared(coarse, 8), told, tmp_path).train()
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert any("not compared with the base" in text and "rounding" in text for text in warnings)


def rating_trainer(base, settings, live, folder):
    ratings = prepare_ratings(rating_rows(16, 16), base.tokenizer, 256, 8, 0)
    start = start_policy(base.model, settings, live)
    return build_rating_trainer(start, base.tokenizer, ratings, settings, folder)


@pytest.mark.parametrize("build", [pair_trainer, rating_trainer])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_in_bfloat16_a_wrong_reference_ends_the_training_and_the_right_one_does_not(
    build, quantization, base_folder, live_adapter, settings, tmp_path, monkeypatch
):
    """The library takes the base for the reference where the live adapter was asked for."""
    told = replace(settings, start="previous", reference="previous")

    def begin():
        coarse = load_base(BaseModel(str(base_folder), quantization=quantization, dtype="bfloat16"))
        trainer = build(coarse, told, live_adapter, tmp_path)
        check = trainer.pop_callback(CheckStart)
        check.on_train_begin(trainer.args, TrainerState(), trainer.control)

    begin()
    for where in ("trainer.pair_trainer", "trl.trainer.kto_trainer"):
        monkeypatch.setattr(f"{where}.use_adapter", lambda model, *_, **__: use_adapter(model, None))
    with pytest.raises(WrongStart, match=r"nats a token \(allowed 0\.001\) from the stored log-probs"):
        begin()


@pytest.mark.parametrize("loss", ["cdpo", "aot", "simpo", "orpo"])
def test_the_check_passes_and_leaves_no_trace(loss, base, settings, tmp_path, monkeypatch):
    told = replace(settings, loss=loss, sft_weight=1.0, epochs=1, wpo=loss == "cdpo")
    rows = prepared(base, 16)
    with_it, log_with = train(base, rows, told, tmp_path)
    monkeypatch.setattr(CheckStart, "watch", lambda *_: None)
    without, log_without = train(base, rows, told, tmp_path)
    assert all(torch.equal(with_it[name], without[name]) for name in with_it)
    timed = {"train_runtime", "train_samples_per_second", "train_steps_per_second"}
    for one, other in zip(log_with, log_without, strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {
            k: v for k, v in other.items() if k not in timed
        }
