"""Training computes of an answer what serving computed when it gave it: same prompt, weights, precision."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

import serving.settings
import trainer.settings
from serving.in_process import InProcessEngine
from store.records import Chunk, PairRow, Sampling
from trainer.dpo import build_pair_trainer, referred_answers
from trainer.preferences import prepare_pairs
from trainer.qlora import load_base, start_policy
from trainer.recorded import Comparison, compare_with_recorded
from trainer.rules_of_steps import SERVED_TOLERANCE
from trainer.settings import TrainerSettings

STARTER = str(Path(serving.settings.__file__).parent / "starter")
QUESTIONS = ["What is the capital of France?", "Tell me of the sea.", "What is 3 plus 4?", "Who are you?"]


def answer_twice(dtype: str) -> list[PairRow]:
    """Two sampled answers to each question, as the service stores them."""
    engine = InProcessEngine(serving.settings.BaseSettings(STARTER, quantization="none", dtype=dtype))
    rows = []
    try:
        engine.load("v0", None)
        for number, question in enumerate(QUESTIONS):
            messages = ({"role": "user", "content": question},)
            chosen, rejected = (
                list(engine.generate("v0", messages, Sampling(temperature=1.3, max_tokens=32, seed=seed)))[-1]
                for seed in (number, 100 + number)
            )
            rows.append(pair(f"p{number}", messages, chosen, rejected))
    finally:
        engine.close()
    return rows


def pair(row_id: str, messages: tuple[dict[str, str], ...], chosen: Chunk, rejected: Chunk) -> PairRow:
    return PairRow(
        row_id=row_id,
        prompt_id=row_id,
        messages=messages,
        chosen="told by its ids",
        rejected="told by its ids",
        chosen_ids=chosen.token_ids,
        rejected_ids=rejected.token_ids,
        chosen_version="v0",
        rejected_version="v0",
        strength=1,
        weight=1.0,
        person_ids=("ann",),
        label_ids=("j",),
        source="human",
        probability=1.0,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        chosen_logprob=chosen.logprob_sum,
        rejected_logprob=rejected.logprob_sum,
    )


def compare(rows: list[PairRow], folder: Path, dtype: str, template: str | None = None) -> Comparison:
    base = load_base(trainer.settings.BaseModel(STARTER, template, quantization="none", dtype=dtype))
    pairs = prepare_pairs(rows, base.tokenizer, 512).rows
    settings = TrainerSettings(batch_size=4)
    built = build_pair_trainer(
        start_policy(base.model, settings, None), base.tokenizer, pairs, settings, folder
    )
    return compare_with_recorded(referred_answers(pairs, built.train_dataset))["v0"]


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-5), ("bfloat16", SERVED_TOLERANCE / 2)])
def test_the_reference_is_what_answered_and_another_template_is_noticed(dtype, allowed, tmp_path):
    rows = answer_twice(dtype)
    same = compare(rows, tmp_path, dtype)
    assert same.num_answers == 2 * len(QUESTIONS)
    assert same.apart <= allowed
    assert compare(rows, tmp_path, dtype, template="zephyr").apart > 2 * SERVED_TOLERANCE
