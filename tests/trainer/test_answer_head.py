"""Answer tokens scored alone: numbers and gradients of full logits, whatever a model does to its logits."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from trainer.answer_head import score_answers

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
