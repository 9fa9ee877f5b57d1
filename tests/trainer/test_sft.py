"""Supervised fine-tuning on a tiny policy: it learns the answers and only those, the same way each time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.sft import SftExample, SftReport, SftSettings, train_sft
from trainer.starter.build import train_tokenizer
from trainer.starter.dialogue import Mixture, write_corpus

QUESTIONS = ("Which bird sings?", "Where is the cat?", "Who made the tea?", "What is in the bag?")
EXAMPLES = [
    SftExample([{"role": "user", "content": question}], "It is the old grey one.") for question in QUESTIONS
]
SETTINGS = SftSettings(batch_size=2, epochs=12, learning_rate=1e-2, log_every=100)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(list(write_corpus(200, 1, Mixture())))


def create_tiny_policy(tokenizer: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=1,
            head_dim=64,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
    )


def read_surprise(policy: LlamaForCausalLM, tokenizer: Any) -> tuple[float, float]:
    """Mean negative log-likelihood of one example's prompt tokens and of its answer tokens."""
    prompt = tokenizer.apply_chat_template(EXAMPLES[0].messages, add_generation_prompt=True)["input_ids"]
    answer = tokenizer(EXAMPLES[0].answer + tokenizer.eos_token)["input_ids"]
    tokens = torch.tensor([prompt + answer])
    with torch.no_grad():
        logps = policy(tokens).logits[0, :-1].log_softmax(-1)  # (seq - 1, vocabulary)
    surprise = -logps.gather(1, tokens[0, 1:, None])[:, 0]
    return float(surprise[: len(prompt) - 1].mean()), float(surprise[len(prompt) - 1 :].mean())


def test_the_answers_are_learned_and_the_prompts_are_not(tokenizer: Any, tmp_path: Path) -> None:
    policy = create_tiny_policy(tokenizer)
    prompt_before, answer_before = read_surprise(policy, tokenizer)
    report = train_sft(policy, tokenizer, EXAMPLES, SETTINGS, tmp_path)
    prompt_after, answer_after = read_surprise(policy, tokenizer)
    assert answer_after < 0.2 * answer_before
    assert prompt_after > 0.8 * prompt_before
    assert report.steps == 24
    assert report.tokens_per_second > 0


def test_the_same_seed_trains_the_same_weights(tokenizer: Any, tmp_path: Path) -> None:
    first, second = create_tiny_policy(tokenizer), create_tiny_policy(tokenizer)
    for policy in (first, second):
        train_sft(policy, tokenizer, EXAMPLES, SETTINGS, tmp_path)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name


def test_a_trained_policy_may_use_its_cache(tokenizer: Any, tmp_path: Path) -> None:
    policy = create_tiny_policy(tokenizer)
    train_sft(policy, tokenizer, EXAMPLES, SETTINGS, tmp_path)
    assert policy.config.use_cache is True


def test_no_examples_and_impossible_settings_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SFT got no examples"):
        train_sft(create_tiny_policy(tokenizer), tokenizer, [], SETTINGS, tmp_path)
    with pytest.raises(ValueError, match="batch_size=0"):
        SftSettings(batch_size=0)


def test_a_report_counts_tokens_a_second() -> None:
    assert SftReport(steps=1, tokens=300, seconds=2.0, final_loss=0.1).tokens_per_second == 150.0
