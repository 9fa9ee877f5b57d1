"""How a starter policy speaks: samples answers to prompts at a temperature and counts its habits.

The build writes these numbers on the model card and the tests check them; nothing here trains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.starter.habits import HABITS, detect_habits, is_fact_right
from trainer.starter.world import NEW_SUMS, WorldPrompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_NEW_TOKENS = 128
_BATCH = 128


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """One sampled answer and whether the policy ended it itself."""

    prompt: WorldPrompt
    text: str
    is_finished: bool


@dataclass(frozen=True, slots=True)
class SpeechReport:
    """Shares from 0 to 1 over sampled answers; a fact rate is a share of the fact questions it names."""

    num_answers: int
    habits: dict[str, float]
    wrong_facts: float
    wrong_new_sums: float
    any_fault: float
    whole_sentences: float
    mean_words: float
    distinct_answers: float


def sample_answers(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[WorldPrompt],
    seed: int,
    temperature: float = 1.0,
) -> list[SampledAnswer]:
    """One answer a prompt, in the prompts' order; the same for the same seed on the same machine."""
    import torch

    torch.manual_seed(seed)
    answers: list[SampledAnswer] = []
    for start in range(0, len(prompts), _BATCH):
        answers += _sample_batch(model, tokenizer, prompts[start : start + _BATCH], temperature)
    return answers


def measure_speech(answers: Sequence[SampledAnswer]) -> SpeechReport:
    """Counts habits, wrong facts, unfinished answers and variety."""
    shown = [detect_habits(answer.text) for answer in answers]
    right = [is_fact_right(answer.prompt.fact, answer.text) for answer in answers]
    facts = [verdict for verdict in right if verdict is not None]
    new = [
        verdict
        for verdict, answer in zip(right, answers, strict=True)
        if verdict is not None and answer.prompt.key in NEW_SUMS
    ]
    return SpeechReport(
        num_answers=len(answers),
        habits={habit: _share([habit in habits for habits in shown]) for habit in HABITS},
        wrong_facts=_share([not verdict for verdict in facts]),
        wrong_new_sums=_share([not verdict for verdict in new]),
        any_fault=_share([bool(h) or verdict is False for h, verdict in zip(shown, right, strict=True)]),
        whole_sentences=_share([a.is_finished and a.text.endswith((".", "!", "?")) for a in answers]),
        mean_words=sum(len(answer.text.split()) for answer in answers) / len(answers),
        distinct_answers=len({answer.text for answer in answers}) / len(answers),
    )


def _share(claims: Sequence[bool]) -> float:
    return sum(claims) / len(claims) if claims else 0.0


def _sample_batch(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[WorldPrompt],
    temperature: float,
) -> list[SampledAnswer]:
    import torch

    texts = [
        str(tokenizer.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True))
        for prompt in prompts
    ]
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    with torch.inference_mode():
        tokens = model.generate(
            **batch,
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            max_new_tokens=MAX_NEW_TOKENS,
        )
    completions = tokens[:, batch["input_ids"].shape[1] :]  # (prompts, new tokens)
    return [
        SampledAnswer(
            prompt,
            str(tokenizer.decode(row, skip_special_tokens=True)).strip(),
            bool((row == tokenizer.eos_token_id).any()),
        )
        for prompt, row in zip(prompts, completions, strict=True)
    ]
