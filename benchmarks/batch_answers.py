"""Many answers at once straight from a model in this process, with what each cost under its own raw logits.

For benchmarks that train and sample without a service. It knows models and ids, and nothing of tastes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.metrics import Row
from store.records import Message

BATCH = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled answer: its ids with the end token, its log-prob in nats, and the prompt's ids."""

    messages: tuple[Message, ...]
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    logprob_sum: float
    has_ended: bool

    def row(self) -> Row:
        """As the loop's metrics read it."""
        reason = "stop" if self.has_ended else "length"
        return Row(self.messages, self.text, self.logprob_sum, len(self.token_ids), reason)


@torch.inference_mode()
def sample_in_batches(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[Message]],
    max_tokens: int,
    seed: int,
    temperature: float = 1.0,
) -> list[Answer]:
    """One answer a prompt, in their order; the same seed and batches give the same answers."""
    model.eval()
    torch.manual_seed(seed)
    answers: list[Answer] = []
    for start in range(0, len(prompts), BATCH):
        answers += _sample_batch(model, tokenizer, prompts[start : start + BATCH], max_tokens, temperature)
    return answers


def _sample_batch(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[Message]], max_tokens: int, temperature: float
) -> list[Answer]:
    rendered = [
        tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=False)
        for prompt in prompts
    ]
    width, pad = max(len(ids) for ids in rendered), tokenizer.pad_token_id
    input_ids = torch.tensor([[pad] * (width - len(ids)) + list(ids) for ids in rendered])
    attention = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in rendered])
    drawn = model.generate(
        input_ids=input_ids.to(model.device),
        attention_mask=attention.to(model.device),
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_tokens,
        pad_token_id=pad,
        return_dict_in_generate=True,
        output_logits=True,
    )
    tokens = drawn.sequences[:, width:]  # (batch, new tokens)
    logps = torch.stack(drawn.logits, dim=1).log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return [
        _read(tokenizer, tuple(prompt), tuple(rendered[place]), tokens[place], logps[place])
        for place, prompt in enumerate(prompts)
    ]


def _read(
    tokenizer: Any,
    messages: tuple[Message, ...],
    prompt_ids: tuple[int, ...],
    tokens: torch.Tensor,
    logps: torch.Tensor,
) -> Answer:
    ends = (tokens == tokenizer.eos_token_id).nonzero()
    # The end token counts, the padding after it does not.
    length = int(ends[0]) + 1 if len(ends) else len(tokens)
    ids = tuple(tokens[:length].tolist())
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return Answer(messages, prompt_ids, ids, text, float(logps[:length].sum()), bool(len(ends)))


@torch.inference_mode()
def measure_drift(policy: Any, answers: Sequence[Answer]) -> float:
    """Nats a token by which a PEFT policy's own answers are likelier under it than under its base: an
    estimate of the KL from the base."""
    policy.eval()
    with policy.disable_adapter():
        base = sum(
            _score_batch(policy, answers[start : start + BATCH]) for start in range(0, len(answers), BATCH)
        )
    own = sum(answer.logprob_sum for answer in answers)
    return (own - base) / sum(len(answer.token_ids) for answer in answers)


def _score_batch(model: Any, answers: Sequence[Answer]) -> float:
    whole = [(*answer.prompt_ids, *answer.token_ids) for answer in answers]
    width = max(len(ids) for ids in whole)
    input_ids = torch.tensor([list(ids) + [0] * (width - len(ids)) for ids in whole])
    attention = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in whole])
    logits = model(input_ids=input_ids.to(model.device), attention_mask=attention.to(model.device)).logits
    logps = logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, 1:, None].to(model.device)).squeeze(-1)
    return sum(
        float(logps[place, len(answer.prompt_ids) - 1 : len(ids) - 1].sum())
        for place, (answer, ids) in enumerate(zip(answers, whole, strict=True))
    )
