"""Each trap of the libraries we stand on, with our correction and without it.

A test named `without` shows that the trap still springs. When one fails, the library has changed: look
whether the correction can go.
"""

from __future__ import annotations

import json
from dataclasses import replace
from math import log
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import TrainerCallback

from tests.trainer.conftest import pair_rows, rating_rows
from trainer import preferences, qlora
from trainer.dpo import build_pair_trainer, train_dpo
from trainer.guards import SkipNonFiniteSteps
from trainer.invariants import CheckStart, WrongStart
from trainer.kto import build_rating_trainer
from trainer.losses import cdpo_losses
from trainer.preferences import prepare_pairs, prepare_ratings
from trainer.progress import ReportProgress
from trainer.qlora import PolicyStart, load_base, lora_config, read_weights, start_policy
from trainer.settings import BaseModel

LN2 = log(2)
repacks = pytest.mark.skipif(
    "avx512_bf16" not in Path("/proc/cpuinfo").read_text(),
    reason="only a CPU with AVX512-BF16 repacks 4-bit weights",
)


def prepared(base, count):
    return prepare_pairs(pair_rows(count), base.tokenizer, 256).rows


def first_loss(start, base, settings, folder, is_checked=True):
    trainer = build_pair_trainer(start, base.tokenizer, prepared(base, 8), settings, folder)
    if not is_checked:
        trainer.remove_callback(CheckStart)
    trainer.train()
    return trainer.state.log_history[0]["loss"]


@pytest.fixture
def live_adapter(nf4_base, settings, tmp_path, progress):
    """The folder of a trained adapter, and an NF4 base it was taken off again."""
    policy = train_dpo(
        start_policy(nf4_base.model, settings, None),
        nf4_base.tokenizer,
        prepared(nf4_base, 24),
        settings,
        tmp_path,
        progress,
    )
    policy.save_pretrained(tmp_path / "live", selected_adapters=["default"])
    policy.unload()
    return tmp_path / "live"


# Finding 1: bitsandbytes repacks 4-bit weights in the first eval forward, and then has no right gradients.


def gradients_around_an_eval_forward(base, settings):
    torch.manual_seed(0)
    policy = get_peft_model(base.model, lora_config(settings)).train()
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return [gradient(policy), evaluated(policy), gradient(policy)][::2]


def gradient(policy):
    policy.train().zero_grad()
    policy(input_ids=torch.arange(4, 36)[None]).logits.log_softmax(-1)[..., 7].sum().backward()
    return torch.cat([p.grad.flatten().float() for p in policy.parameters() if p.grad is not None])


def evaluated(policy):
    with torch.no_grad():
        return policy.eval()(input_ids=torch.arange(4, 12)[None])


def test_gradients_are_the_same_before_and_after_an_eval_forward(nf4_base, settings):
    before, after = gradients_around_an_eval_forward(nf4_base, settings)
    assert (before - after).norm() <= 1e-5 * before.norm()


@repacks
@pytest.mark.filterwarnings("ignore:bitsandbytes..gemv_4bit")
def test_without_forbidding_it_an_eval_forward_spoils_the_gradients(base_folder, settings, monkeypatch):
    # torch warns of it, once, in the middle of a training log.
    monkeypatch.setattr(qlora, "forbid_cpu_repacking", lambda _model: None)
    base = load_base(BaseModel(str(base_folder), quantization="nf4", dtype="float32"))
    before, after = gradients_around_an_eval_forward(base, settings)
    assert (before - after).norm() > 0.1 * before.norm()


def test_no_quantized_layer_may_repack(nf4_base):
    layers = [module for module in nf4_base.model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert len(layers) == 14
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


# Finding 2: QLoRA adapters are cast to bfloat16, where small updates are rounded away.


def share_of_moved_weights(base, settings, folder):
    settings = replace(settings, learning_rate=5e-6, epochs=4)
    trainer = build_pair_trainer(
        start_policy(base.model, settings, None), base.tokenizer, prepared(base, 32), settings, folder
    )
    before = read_weights(trainer.model)
    trainer.train()
    after = read_weights(trainer.model)
    moved = [(before[name] != after[name]).float().mean().item() for name in before if "lora_A" in name]
    return sum(moved) / len(moved)


def test_every_adapter_weight_moves_at_a_small_learning_rate(nf4_base, settings, tmp_path):
    assert share_of_moved_weights(nf4_base, settings, tmp_path) > 0.99


def test_without_upcasting_most_weights_never_move(nf4_base, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(qlora, "upcast_trainable", lambda _model: None)
    assert share_of_moved_weights(nf4_base, settings, tmp_path) < 0.5


# Finding 3: the cast rounds the policy and not its reference, so the two differ from the start.


def test_a_policy_that_equals_its_reference_starts_at_ln_2(nf4_base, live_adapter, settings, tmp_path):
    settings = replace(settings, start="previous", reference="previous")
    start = start_policy(nf4_base.model, settings, live_adapter)
    assert first_loss(start, nf4_base, settings, tmp_path) == pytest.approx(LN2, abs=1e-6)


def test_without_restoring_its_weights_it_does_not(nf4_base, live_adapter, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(qlora, "restore_weights", lambda _model, _weights: None)
    settings = replace(settings, start="previous", reference="previous", label_smoothing=0.0, beta=1.0)
    start = start_policy(nf4_base.model, settings, live_adapter)
    assert abs(first_loss(start, nf4_base, settings, tmp_path, is_checked=False) - LN2) > 1e-5


def test_the_check_before_the_first_step_finds_weights_that_were_rounded(
    nf4_base, live_adapter, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(qlora, "restore_weights", lambda _model, _weights: None)
    settings = replace(settings, start="previous", reference="previous", label_smoothing=0.0, beta=1.0)
    start = start_policy(nf4_base.model, settings, live_adapter)
    with pytest.raises(WrongStart, match=r"instead of 0\.693147.*previous adapter, which it should equal"):
        first_loss(start, nf4_base, settings, tmp_path)


# Finding 4: handing over a policy with an adapter silently makes that adapter the reference.


def test_a_continued_policy_is_compared_with_the_base(nf4_base, live_adapter, settings, tmp_path):
    settings = replace(settings, start="previous", reference="base")
    trainer = build_pair_trainer(
        start_policy(nf4_base.model, settings, live_adapter),
        nf4_base.tokenizer,
        prepared(nf4_base, 8),
        settings,
        tmp_path,
    )
    assert list(trainer.model.peft_config) == ["default"]
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["rewards/margins"] > 0.5
    assert first["loss"] < LN2 - 0.1


def test_without_a_fresh_adapter_the_live_one_becomes_the_reference(
    nf4_base, live_adapter, settings, tmp_path
):
    handed_over = PeftModel.from_pretrained(nf4_base.model, str(live_adapter), is_trainable=True)
    start = PolicyStart(handed_over, None, None)
    assert first_loss(start, nf4_base, settings, tmp_path, is_checked=False) == pytest.approx(LN2, abs=1e-3)


def test_the_check_before_the_first_step_finds_a_reference_nobody_asked_for(
    nf4_base, live_adapter, settings, tmp_path
):
    start = PolicyStart(
        PeftModel.from_pretrained(nf4_base.model, str(live_adapter), is_trainable=True), None, None
    )
    with pytest.raises(WrongStart, match=r"the policy is not compared with the base, from which"):
        first_loss(start, nf4_base, replace(settings, start="previous"), tmp_path)


def test_the_reference_copy_is_frozen_and_is_not_saved(nf4_base, live_adapter, settings, tmp_path, progress):
    settings = replace(settings, start="previous", reference="previous")
    start = start_policy(nf4_base.model, settings, live_adapter)
    policy = train_dpo(start, nf4_base.tokenizer, prepared(nf4_base, 16), settings, tmp_path, progress)
    assert sorted(policy.peft_config) == ["default", "ref"]
    live = qlora.load_peft_weights(str(live_adapter))
    frozen = qlora.get_peft_model_state_dict(policy, adapter_name="ref")
    assert all(torch.equal(frozen[name], live[name]) for name in live)
    policy.save_pretrained(tmp_path / "out", selected_adapters=["default"])
    assert not (tmp_path / "out" / "ref").exists()


# Finding 5: the sigmoid loss has no finite optimum, cDPO has one.


def test_cdpo_pulls_a_saturated_pair_back_and_sigmoid_pushes_it_on():
    margins = torch.tensor([5.0, 5.0], requires_grad=True)
    cdpo_losses(margins, torch.tensor([0.1, 0.0])).sum().backward()
    assert margins.grad[0] > 0 > margins.grad[1]


# Finding 7: KTO reads rows in stored order, and a set sorted by class teaches nothing.


def kto_batches(base, settings, folder):
    ratings = prepare_ratings(rating_rows(48, 48), base.tokenizer, 256, 8, 0)
    trainer = build_rating_trainer(
        start_policy(base.model, settings, None), base.tokenizer, ratings, settings, folder
    )
    trainer.train()
    labels = [int(batch["label"].sum()) for batch in trainer.get_train_dataloader()]
    return labels, [line for line in trainer.state.log_history if "loss" in line]


def test_every_kto_batch_has_both_classes(base, settings, tmp_path):
    labels, lines = kto_batches(base, settings, tmp_path)
    assert labels == [4] * 12
    assert all("rewards/margins" in line for line in lines)
    assert lines[-1]["loss"] < 0.35


def test_without_mixing_every_batch_has_one_class(base, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(
        preferences, "mix_classes", lambda rows, *_: sorted(rows, key=lambda r: not r.desirable)
    )
    labels, lines = kto_batches(base, settings, tmp_path)
    assert labels == [8] * 6 + [0] * 6
    assert not any("rewards/margins" in line for line in lines)


# Finding 8: one NaN step leaves a wholly NaN adapter, while the log shows a loss of 0.


class Poison(TrainerCallback):
    """Makes one gradient NaN at the given steps, as an overflow would."""

    def __init__(self, *steps):
        self.steps = steps

    def on_pre_optimizer_step(self, _args, state, _control, model, **_kwargs):
        if state.global_step in self.steps:
            next(p for p in model.parameters() if p.grad is not None).grad.fill_(float("nan"))


def poisoned(base, settings, folder, *steps):
    trainer = build_pair_trainer(
        start_policy(base.model, settings, None), base.tokenizer, prepared(base, 48), settings, folder
    )
    guard = trainer.pop_callback(SkipNonFiniteSteps)
    trainer.add_callback(Poison(*steps))
    return trainer, guard


def is_finite(trainer):
    return all(torch.isfinite(tensor).all() for tensor in read_weights(trainer.model).values())


def test_a_nan_step_is_skipped_and_training_goes_on(base, settings, tmp_path):
    trainer, guard = poisoned(base, settings, tmp_path, 3, 7)
    trainer.add_callback(guard)
    trainer.train()
    assert guard.num_skipped == 2
    assert is_finite(trainer)
    assert trainer.state.log_history[-2]["rewards/margins"] > 0


def test_without_the_guard_the_adapter_ends_as_nan(base, settings, tmp_path):
    trainer, _ = poisoned(base, settings, tmp_path, 3)
    trainer.train()
    assert not is_finite(trainer)


def test_the_third_nan_step_ends_the_training(base, settings, tmp_path):
    trainer, guard = poisoned(base, settings, tmp_path, 1, 2, 3)
    trainer.add_callback(guard)
    with pytest.raises(RuntimeError, match=r"training diverged: 3 steps .* the last at step 4"):
        trainer.train()


def test_a_nan_loss_is_logged_as_null_and_never_as_zero(base, settings, tmp_path, progress):
    trainer, _ = poisoned(base, settings, tmp_path, 0)
    trainer.add_callback(ReportProgress(progress, "dpo"))
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] == pytest.approx(LN2, abs=1e-5)
    assert lines[1]["loss"] is None
