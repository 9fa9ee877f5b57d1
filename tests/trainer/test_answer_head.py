"""Answer tokens scored alone: numbers and gradients of full logits, whatever a model does to its logits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.trainer.conftest import pair_rows
from trainer import pair_trainer
from trainer.answer_head import score_answers
from trainer.dpo import build_pair_trainer
from trainer.pair_trainer import reference_batches
from trainer.preferences import prepare_pairs
from trainer.qlora import LoadedBase, start_policy
from trainer.settings import TrainerSettings

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.5,
}
IDS = torch.arange(2, 20).view(2, 9)
LABELS = IDS.masked_fill(torch.arange(9) < torch.tensor([[4], [6]]), -100)


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE)).eval()


def capped():
    """Its logits are pressed into -2..2 after the head."""
    torch.manual_seed(0)
    return Gemma2ForCausalLM(Gemma2Config(**SHAPE, final_logit_softcapping=2.0)).eval()


def score_all(model):
    """The same from the logits of every position."""
    logits = model(input_ids=IDS, use_cache=False).logits[:, :-1]
    where, targets = LABELS[:, 1:] != -100, LABELS[:, 1:].clamp(min=0)
    logps = logits.log_softmax(-1)
    return {
        "log_probs": logps.gather(2, targets[..., None])[..., 0] * where,
        "entropy": -(logps.exp() * logps).sum(-1) * where,
        "mean_logits": logits.mean(-1) * where,
        "is_top1": (logits.argmax(-1) == targets) & where,
        "log_sum_sq_probs": (2 * logps).logsumexp(-1) * where,
    }


def gradients(model, log_probs):
    model.zero_grad()
    (log_probs * torch.linspace(-1, 2, 8)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("build", [llama, capped])
def test_scores_and_gradients_are_those_of_full_logits(build):
    model = build()
    whole = score_all(model)
    scores = score_answers(model, model.lm_head, {"input_ids": IDS}, LABELS, squares=True)
    for name, values in whole.items():
        assert torch.allclose(getattr(scores, name).float(), values.float(), atol=1e-5), name
    expected = gradients(model, whole["log_probs"])
    found = gradients(model, scores.log_probs)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-4) for name in expected)


def test_the_head_sees_answer_tokens_only_and_all_of_them_again_afterwards():
    model, seen = llama(), []
    model.lm_head.register_forward_hook(lambda _module, arguments, _output: seen.append(arguments[0].shape))
    score_answers(model, model.lm_head, {"input_ids": IDS}, LABELS)
    model(input_ids=IDS)
    assert seen == [(8, 16), (2, 9, 16)]


def pair_columns(answers: list[int], prompt: int = 2) -> Any:
    """Pairs with that many answer tokens each, half of them chosen ones."""
    return {
        "prompt_ids": [[1] * prompt for _ in answers],
        "chosen_ids": [[2] * (many // 2) for many in answers],
        "rejected_ids": [[3] * (many - many // 2) for many in answers],
    }


def test_no_batch_of_the_reference_has_more_answer_tokens_than_a_step_where_all_logits_are_held() -> None:
    answers = [4] * 20 + [40, 60, 50, 44, 40, 40]
    batches = reference_batches(pair_columns(answers), 2, 1, is_capped=True)
    assert sorted(place for batch in batches for place in batch) == list(range(len(answers)))
    assert max(sum(answers[place] for place in batch) for batch in batches) <= 60 + 50
    assert [len(batch) for batch in batches[:2]] == [8, 8], "short ones are still taken four times as many"
    uncapped = reference_batches(pair_columns(answers), 2, 1, is_capped=False)
    assert [len(batch) for batch in uncapped] == [8, 8, 8, 2]


def test_pairs_have_the_same_reference_log_probs_however_they_are_batched(
    base: LoadedBase, settings: TrainerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = prepare_pairs(pair_rows(24), base.tokenizer, 256).rows
    start = start_policy(base.model, settings, None)
    trainer = build_pair_trainer(start, base.tokenizer, rows, replace(settings, batch_size=2), tmp_path)
    columns = ("ref_chosen_logps", "ref_rejected_logps")
    capped = {name: trainer.train_dataset[name] for name in columns}
    whole = partial(reference_batches, is_capped=False)
    monkeypatch.setattr(pair_trainer, "reference_batches", lambda *args, is_capped: whole(*args))  # noqa: ARG005
    plain = trainer.train_dataset.remove_columns(list(columns))
    again = trainer._precompute_ref_logps(plain, "train", 2)
    for name in columns:
        assert list(again[name]) == pytest.approx(list(capped[name]), abs=1e-4)
