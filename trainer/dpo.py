"""Trains on preference pairs: builds the pair trainer from settings and runs it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig

from store.errors import BadValue
from trainer.guards import SkipNonFiniteSteps
from trainer.invariants import CheckStart, expected_pair_loss
from trainer.library import (
    add_reference,
    check_processes,
    must_wait_with_reference,
    share_rows,
    shared_arguments,
)
from trainer.pair_layout import SharedPromptCollator, refuse_window
from trainer.pair_trainer import PairTrainer
from trainer.preferences import TrainingPair
from trainer.progress import ProgressLog, ReportProgress
from trainer.qlora import PolicyStart, settle_weights
from trainer.recorded import Referred
from trainer.settings import REFERENCE_FREE, TrainerSettings

if TYPE_CHECKING:
    from trainer.guarded import Guarded

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


def check_flips(rows: Sequence[TrainingPair], settings: TrainerSettings) -> None:
    """Say aloud what becomes of doubtful labels where a loss has no place for them."""
    flips = {row.row_id: flip_of(row.probability, settings.label_smoothing) for row in rows}
    coins = [row_id for row_id, flip in flips.items() if flip >= 0.5]
    if settings.loss == "robust" and coins:
        raise BadValue(
            f"loss 'robust' divides by 1 - 2 x flip, and pair {coins[0]} ({len(coins)} in all) has flip"
            f" {flips[coins[0]]:.2f}: leave such pairs out, or choose loss 'cdpo'"
        )
    if settings.loss == "sigmoid" and any(flips.values()):
        logger.info(
            "loss 'sigmoid' takes every label at its word: the doubt about %d of %d pairs (label_smoothing"
            " %g) is not used; 'cdpo' uses it",
            sum(flip > 0 for flip in flips.values()),
            len(rows),
            settings.label_smoothing,
        )


def build_pair_trainer(
    start: PolicyStart, tokenizer: Any, rows: Sequence[TrainingPair], settings: TrainerSettings, folder: Path
) -> PairTrainer:
    """A trainer whose adapter holds exactly the starting weights, in float32, before its first step."""
    arguments = shared_arguments(
        settings, folder, settings.learning_rate, settings.epochs, settings.batch_size
    )
    arguments["precompute_ref_log_probs"] = settings.loss not in REFERENCE_FREE
    arguments["use_weighting"] = settings.wpo  # for what its weights are made of; they are ours
    check_flips(rows, settings)
    refuse_window(start.model.config, settings.max_length)
    whole = settings.epochs * -(-len(rows) // (settings.batch_size * settings.accumulation))
    if 0 < settings.max_steps < whole:
        arguments["max_steps"] = settings.max_steps
    check = CheckStart(start, settings, expected_pair_loss(settings))
    waits = must_wait_with_reference(arguments, settings)
    config = DPOConfig(**arguments)
    trainer = PairTrainer(
        model=start.model,
        ref_model=start.reference_model,
        args=config,
        train_dataset=share_rows(
            pair_dataset(rows, settings.label_smoothing), config, folder / "work" / "dpo" / "rows"
        ),
        data_collator=SharedPromptCollator(tokenizer.pad_token_id),
        processing_class=tokenizer,
        peft_config=start.peft_config,
        callbacks=[SkipNonFiniteSteps()],
    )
    trainer.loss_settings = settings
    trainer.remove_callback(PrinterCallback)
    check_processes(trainer, settings)
    if waits:
        add_reference(trainer)
    settle_weights(trainer.model, start.weights)
    check.watch(trainer)
    return trainer


def referred_answers(rows: Sequence[TrainingPair], dataset: Any) -> Iterator[Referred]:
    """Each answer of the pairs, with the reference's log-prob as the trainer has it."""
    logps = dataset["ref_chosen_logps"], dataset["ref_rejected_logps"]
    for row, chosen, rejected in zip(rows, *logps, strict=True):
        yield row.chosen_origin, len(row.chosen_ids), chosen
        yield row.rejected_origin, len(row.rejected_ids), rejected


def train_dpo(
    start: PolicyStart,
    tokenizer: Any,
    rows: Sequence[TrainingPair],
    settings: TrainerSettings,
    folder: Path,
    progress: ProgressLog,
    guarded: Guarded | None = None,
) -> Any:
    """Train on the pairs, for a round under its guards; returns the PEFT model whose "default" adapter is the
    new policy."""
    trainer = build_pair_trainer(start, tokenizer, rows, settings, folder)
    trainer.add_callback(ReportProgress(progress, "dpo", settings.loss not in REFERENCE_FREE))
    if guarded and settings.loss not in REFERENCE_FREE:
        guarded.compare_with_recorded("dpo", referred_answers(rows, trainer.train_dataset))
    result = guarded.train(trainer, "dpo", tokenizer.pad_token_id) if guarded else trainer.train()
    logger.info(
        "dpo: %d pairs, %d steps, mean loss %.4f", len(rows), result.global_step, result.training_loss
    )
    return trainer.model
