"""Trains on preference pairs: builds the pair trainer from settings and runs it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig

from trainer.guards import SkipNonFiniteSteps
from trainer.library import (
    add_reference,
    check_processes,
    must_wait_with_reference,
    share_rows,
    shared_arguments,
)
from trainer.pair_layout import SharedPromptCollator
from trainer.pair_trainer import PairTrainer
from trainer.preferences import TrainingPair
from trainer.progress import ProgressLog, ReportProgress
from trainer.qlora import PolicyStart, settle_weights
from trainer.settings import TrainerSettings

logger = logging.getLogger(__name__)


def flip_of(probability: float, label_smoothing: float) -> float:
    """The share of wrong labels assumed for a pair: what was measured, but never less than the smoothing.

    Both describe the same noise, the smoothing before anything is known of a label and 1 - probability after;
    adding them up would count it twice. As a floor the smoothing keeps the loss's optimum finite.
    """
    return max(label_smoothing, 1.0 - probability)


def pair_dataset(rows: Sequence[TrainingPair], label_smoothing: float) -> Any:
    """The pairs as the trainer reads them, each with the share of wrong labels assumed for it."""
    return Dataset.from_list(
        [
            {
                "prompt_ids": list(row.prompt_ids),
                "chosen_ids": list(row.chosen_ids),
                "rejected_ids": list(row.rejected_ids),
                "weight": row.weight,
                "flip": flip_of(row.probability, label_smoothing),
            }
            for row in rows
        ]
    )


def build_pair_trainer(
    start: PolicyStart, tokenizer: Any, rows: Sequence[TrainingPair], settings: TrainerSettings, folder: Path
) -> PairTrainer:
    """A trainer whose adapter holds exactly the starting weights, in float32, before its first step."""
    arguments = shared_arguments(
        settings, folder, settings.learning_rate, settings.epochs, settings.batch_size
    )
    whole = settings.epochs * -(-len(rows) // (settings.batch_size * settings.accumulation))
    if 0 < settings.max_steps < whole:
        arguments["max_steps"] = settings.max_steps
    waits = must_wait_with_reference(arguments, settings)
    config = DPOConfig(**arguments)
    trainer = PairTrainer(
        model=start.model,
        ref_model=start.reference_model,
        args=config,
        train_dataset=share_rows(
            pair_dataset(rows, settings.label_smoothing), config, folder / "work" / "dpo"
        ),
        data_collator=SharedPromptCollator(tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=start.peft_config,
        callbacks=[SkipNonFiniteSteps()],
    )
    trainer.sft_weight = settings.sft_weight
    trainer.remove_callback(PrinterCallback)
    check_processes(trainer, settings)
    if waits:
        add_reference(trainer)
    settle_weights(trainer.model, start.weights)
    return trainer


def train_dpo(
    start: PolicyStart,
    tokenizer: Any,
    rows: Sequence[TrainingPair],
    settings: TrainerSettings,
    folder: Path,
    progress: ProgressLog,
) -> Any:
    """Train on the pairs; returns the PEFT model whose "default" adapter is the new policy."""
    trainer = build_pair_trainer(start, tokenizer, rows, settings, folder)
    trainer.add_callback(ReportProgress(progress, "dpo"))
    result = trainer.train()
    logger.info(
        "dpo: %d pairs, %d steps, mean loss %.4f", len(rows), result.global_step, result.training_loss
    )
    return trainer.model
