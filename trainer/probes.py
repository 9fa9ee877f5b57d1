"""Measures a policy: how likely it finds given answers, and what it says itself to a few prompts.

Numbers only; what they must be is `gate.py`'s subject.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig
from trl.trainer.utils import add_fused_lm_head, use_adapter

from store.records import Message
from trainer.limits import GateSettings
from trainer.preferences import prompt_ids
from trainer.qlora import LoadedBase

# Asked in every round of every project, so that a collapse shows even where the snapshot's prompts are few.
FIXED_PROMPTS = (
    "Hello, how are you?",
    "What is the capital of France?",
    "Write two sentences about the sea.",
    "What is two plus three?",
    "Give me a tip for sleeping better.",
    "Why is the sky blue?",
    "Thank you for your help.",
    "Name three animals.",
)
_SENTENCE_END = re.compile(r"[.!?\n]+")
_MIN_WORDS_OF_SENTENCE = 3
_MIN_WORDS_OF_LOOP = 10


@dataclass(frozen=True, slots=True)
class Exchange:
    """A prompt with one answer to it, as ids."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """One answer under one policy: log-prob summed over its tokens, and the mean entropy at them, in nats."""

    logp: float
    entropy: float
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer a policy gave. `has_ended` is False when it ran into the token limit."""

    sequence: Exchange
    text: str
    has_ended: bool


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a policy's own answers look like. Shares are of answers, length is in tokens, entropy and drift in
    nats a token; `drift` estimates the KL from the base, over the policy's own samples."""

    num_answers: int
    empty: float
    unended: float
    repetitive: float
    distinct: float
    length: float
    entropy: float
    drift: float


class Policies:
    """The base and some adapters on it, to be scored and sampled by name; the base is called "base"."""

    def __init__(self, base: LoadedBase, adapters: dict[str, Path], batch_size: int) -> None:
        self._tokenizer = base.tokenizer
        self._batch_size = batch_size
        (first, folder), *others = adapters.items()
        self._model = PeftModel.from_pretrained(base.model, str(folder), adapter_name=first)
        for name, other in others:
            self._model.load_adapter(str(other), adapter_name=name)
        self._model.eval()
        add_fused_lm_head(self._model.get_base_model(), outputs=("log_probs", "entropy"))

    def _as(self, name: str) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = use_adapter(self._model, None if name == "base" else name)
        return context

    def unload(self) -> Any:
        """The base model without any adapter."""
        return self._model.unload()

    def score(self, name: str, sequences: Sequence[Exchange]) -> list[Score]:
        """Each answer's log-prob and entropy under one policy, in the order given."""
        scores: list[Score] = []
        with torch.inference_mode(), self._as(name):
            for start in range(0, len(sequences), self._batch_size):
                scores += self._score_batch(sequences[start : start + self._batch_size])
        return scores

    def _score_batch(self, sequences: Sequence[Exchange]) -> list[Score]:
        lengths = [len(s.prompt_ids) + len(s.completion_ids) for s in sequences]
        shape = (len(sequences), max(lengths))
        input_ids = torch.full(shape, self._tokenizer.pad_token_id)
        labels = torch.full(shape, -100)
        attention = torch.zeros(shape, dtype=torch.long)
        for i, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
            input_ids[i, :length] = torch.tensor([*sequence.prompt_ids, *sequence.completion_ids])
            attention[i, :length] = 1
            labels[i, len(sequence.prompt_ids) : length] = input_ids[i, len(sequence.prompt_ids) : length]
        device = self._model.device
        outputs = self._model(
            input_ids=input_ids.to(device),
            attention_mask=attention.to(device),
            labels=labels.to(device),
            fused_lm_head=True,
        )
        counts = (labels != -100).sum(1)  # (batch,)
        logps, entropies = outputs.log_probs.float().sum(1).cpu(), outputs.entropy.float().sum(1).cpu()
        return [
            Score(logp.item(), (entropy / count).item(), int(count))
            for logp, entropy, count in zip(logps, entropies, counts, strict=True)
        ]

    def sample(
        self, name: str, prompts: Sequence[tuple[int, ...]], max_tokens: int, seed: int
    ) -> list[Sample]:
        """One answer to each prompt at temperature 1; the same seed gives the same answers."""
        samples: list[Sample] = []
        with torch.inference_mode(), self._as(name):
            for start in range(0, len(prompts), self._batch_size):
                torch.manual_seed(seed + start)
                samples += self._sample_batch(prompts[start : start + self._batch_size], max_tokens)
        return samples

    def _sample_batch(self, prompts: Sequence[tuple[int, ...]], max_tokens: int) -> list[Sample]:
        width = max(len(prompt) for prompt in prompts)
        pad = self._tokenizer.pad_token_id
        input_ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        attention = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        device = self._model.device
        ends = end_ids(self._model.generation_config, self._tokenizer)
        rule = GenerationConfig(
            do_sample=True,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            max_new_tokens=max_tokens,
            eos_token_id=sorted(ends),
            pad_token_id=pad,
            remove_invalid_values=True,  # a broken policy must be measured, not crash the round
        )
        made = self._model.generate(
            input_ids=input_ids.to(device), attention_mask=attention.to(device), generation_config=rule
        )
        return [
            self._read(prompt, line.tolist(), ends)
            for prompt, line in zip(prompts, made[:, width:], strict=True)
        ]

    def _read(self, prompt: tuple[int, ...], line: list[int], ends: set[int]) -> Sample:
        end = next((i for i, token in enumerate(line) if token in ends), None)
        ids = tuple(line if end is None else line[: end + 1])
        text = self._tokenizer.decode(ids, skip_special_tokens=True).strip()
        return Sample(Exchange(prompt, ids), text, has_ended=end is not None)


def end_ids(generation_config: Any, tokenizer: Any) -> set[int]:
    """Every token that ends an answer: the model may name several, the tokenizer names one."""
    named = generation_config.eos_token_id
    several = named if isinstance(named, list) else [named]
    return {int(token) for token in (*several, tokenizer.eos_token_id) if token is not None}


def observe(
    policies: Policies, name: str, prompts: Sequence[tuple[int, ...]], settings: GateSettings
) -> Behaviour:
    """Sample `name` and say what its answers look like."""
    asked = list(prompts) * settings.samples_per_prompt
    samples = policies.sample(name, asked, settings.max_tokens, settings.seed)
    sequences = [sample.sequence for sample in samples]
    own = policies.score(name, sequences)
    base = own if name == "base" else policies.score("base", sequences)
    tokens = sum(score.num_tokens for score in own)
    return Behaviour(
        num_answers=len(samples),
        empty=_share([not sample.text for sample in samples]),
        unended=_share([not sample.has_ended for sample in samples]),
        repetitive=_share([is_repetitive(sample.text) for sample in samples]),
        distinct=distinct_trigrams([sample.text for sample in samples]),
        length=tokens / len(samples),
        entropy=sum(score.entropy * score.num_tokens for score in own) / tokens,
        drift=sum(mine.logp - theirs.logp for mine, theirs in zip(own, base, strict=True)) / tokens,
    )


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def is_repetitive(text: str) -> bool:
    """Whether an answer says a sentence twice, or runs in a loop of words."""
    sentences = [tuple(s.lower().split()) for s in _SENTENCE_END.split(text)]
    long = [sentence for sentence in sentences if len(sentence) >= _MIN_WORDS_OF_SENTENCE]
    if len(set(long)) < len(long):
        return True
    return len(text.split()) >= _MIN_WORDS_OF_LOOP and distinct_trigrams([text]) < 0.5


def distinct_trigrams(texts: Sequence[str]) -> float:
    """Different word trigrams over all of them; 1.0 when there are none."""
    trigrams = [t for words in map(str.split, texts) for t in zip(words, words[1:], words[2:], strict=False)]
    return len(set(trigrams)) / len(trigrams) if trigrams else 1.0


def choose_prompts(
    candidates: Sequence[Sequence[Message]], tokenizer: Any, settings: GateSettings, max_length: int
) -> list[tuple[int, ...]]:
    """The fixed prompts and up to `num_prompts` of the snapshot's, as ids. The choice hangs on the prompts
    alone, so it stays much the same from round to round."""
    fixed: list[list[Message]] = [[{"role": "user", "content": text}] for text in FIXED_PROMPTS]
    known = {hashlib.sha256(json.dumps(messages).encode()).hexdigest(): messages for messages in candidates}
    chosen = [known[digest] for digest in sorted(known)][: settings.num_prompts]
    rendered = [prompt_ids(messages, tokenizer) for messages in (*fixed, *chosen)]
    return [ids for ids in rendered if len(ids) + settings.max_tokens <= max_length]
