"""Pairs of the starter's own answers, judged by a simulated person in this process: no service, no store."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from peft import get_peft_model

from benchmarks.taste import TASTES, choose_side, read_answer
from store.records import Message, PairRow, RatingRow
from trainer.preferences import prompt_ids
from trainer.probes import Policies, Sample
from trainer.qlora import LoadedBase, lora_config
from trainer.settings import starter_settings
from trainer.starter.world import WorldPrompt

TASTE = "direct"
MAX_TOKENS = 96


def save_untrained(base: LoadedBase, folder: Path) -> Path:
    """An adapter that changes nothing, which is how the base is sampled by what samples adapters."""
    model = get_peft_model(base.model, lora_config(starter_settings()))
    model.save_pretrained(str(folder), save_embedding_layers=False)
    model.unload()
    return folder


def sample(
    policies: Policies, name: str, base: LoadedBase, prompts: Sequence[WorldPrompt], seed: int
) -> list[Sample]:
    """One answer to each prompt at temperature 1, the same for the same seed."""
    ids = [prompt_ids(_messages(prompt), base.tokenizer) for prompt in prompts]
    return policies.sample(name, ids, MAX_TOKENS, seed)


def _messages(prompt: WorldPrompt) -> tuple[Message, ...]:
    return tuple(cast(Message, message) for message in prompt.messages)


def judge(
    policies: Policies,
    base: LoadedBase,
    prompts: Sequence[WorldPrompt],
    seed: int,
    noise: float,
) -> list[PairRow]:
    """Two answers to each prompt, and which the taste prefers; ties are left out."""
    draws = [sample(policies, "base", base, prompts, seed * 1000 + 7 * draw) for draw in (1, 2)]
    rng = random.Random(seed)
    rows = []
    for place, (prompt, left, right) in enumerate(zip(prompts, *draws, strict=True)):
        messages = _messages(prompt)
        readings = [read_answer(messages, answer.text) for answer in (left, right)]
        verdict = choose_side(TASTES[TASTE], *readings, noise, rng)
        if verdict.choice != "tie":
            pair = (left, right) if verdict.choice == "left" else (right, left)
            rows.append(_pair_row(place, messages, *pair))
    return rows


def _pair_row(place: int, messages: tuple[Message, ...], chosen: Sample, rejected: Sample) -> PairRow:
    return PairRow(
        row_id=f"p{place:05}",
        prompt_id=f"q{place}",
        messages=messages,
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_ids=chosen.sequence.completion_ids,
        rejected_ids=rejected.sequence.completion_ids,
        chosen_version="v0",
        rejected_version="v0",
        strength=1,
        weight=1.0,
        person_ids=("simulated",),
        label_ids=(f"j{place}",),
        source="human",
        probability=1.0,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def as_ratings(pairs: Sequence[PairRow]) -> list[RatingRow]:
    """The same labels for methods that learn from single answers: chosen is desirable, rejected is not."""
    return [
        RatingRow(
            row_id=f"{pair.row_id}-{'up' if desirable else 'down'}",
            prompt_id=pair.prompt_id,
            messages=pair.messages,
            completion=pair.chosen if desirable else pair.rejected,
            completion_ids=pair.chosen_ids if desirable else pair.rejected_ids,
            version="v0",
            desirable=desirable,
            weight=1.0,
            person_ids=pair.person_ids,
            label_ids=pair.label_ids,
            source="human",
            created_at=pair.created_at,
        )
        for pair in pairs
        for desirable in (True, False)
    ]
